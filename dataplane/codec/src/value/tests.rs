#![allow(clippy::unwrap_used)]

use super::*;

#[derive(serde::Deserialize)]
struct Vectors {
    good: Vec<Vector>,
    bad: Vec<Vector>,
}
#[derive(serde::Deserialize)]
struct Vector {
    name: String,
    hex: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../tests/vectors/value.json")).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

#[test]
fn what_workers_write_is_read_and_written_the_same() {
    let all = vectors().good;
    assert!(all.len() >= 28);
    for vector in all {
        let encoded = bytes(&vector.hex);
        let value = decode(&encoded).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
        assert_eq!(encode(&value).unwrap(), encoded, "{}", vector.name);
    }
}

#[test]
fn what_no_encoder_writes_is_refused() {
    for vector in vectors().bad {
        assert!(decode(&bytes(&vector.hex)).is_err(), "{}", vector.name);
    }
}

#[test]
fn values_are_what_they_were() {
    let find = |name: &str| {
        let all = vectors().good;
        bytes(&all.into_iter().find(|v| v.name == name).unwrap().hex)
    };
    let ints = [0, -1, 1, -2, 63, 64, -64, -65, 127, 128].map(Value::Int);
    assert_eq!(decode(&find("small ints")), Ok(Value::List(ints.to_vec())));
    let edges = [i64::MAX, i64::MIN].map(Value::Int);
    assert_eq!(decode(&find("int edges")), Ok(Value::List(edges.to_vec())));
    let array = find("transposed");
    let Ok(Value::Array { dtype, shape, data }) = decode(&array) else {
        panic!("no array")
    };
    assert_eq!(
        (dtype.as_str(), shape.as_slice(), data.len()),
        ("<i4", &[3, 2][..], 24)
    );
    assert_eq!(data[..8], [0, 0, 0, 0, 3, 0, 0, 0], "C order");
    let order = find("dict order");
    let Ok(Value::Dict(pairs)) = decode(&order) else {
        panic!("no dict")
    };
    assert_eq!(pairs[0].0, Value::Str("z"));
    assert_eq!(pairs[3], (Value::None, Value::Int(4)));
}

#[test]
fn no_wrong_byte_makes_it_panic_or_swell() {
    for vector in vectors().good {
        let good = bytes(&vector.hex);
        for at in 0..good.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                if let Ok(value) = decode(&bad) {
                    assert_eq!(decode(&encode(&value).unwrap()).map(|_| ()), Ok(()));
                }
            }
            assert!(decode(&good[..at]).is_err(), "{} cut at {at}", vector.name);
        }
    }
}

#[test]
fn bounds_hold_on_both_ends() {
    let keys = |n: i64| Value::Set((0..n).map(Value::Int).collect());
    let most = MAX_PLAIN_KEYS as i64;
    let fits = encode(&keys(most)).unwrap();
    assert!(decode(&fits).is_ok());
    assert!(encode(&keys(most + 1)).is_err());
    let mut hostile = vec![VERSION, tag::SET, 0x81, 0x80, 0x04];
    (0..=most).for_each(|_| hostile.extend([tag::INT, 0]));
    assert!(matches!(
        decode(&hostile),
        Err(ValueError::OutOfBounds { .. })
    ));
    let mut many = vec![VERSION, tag::LIST, 0x80, 0x80, 0x80, 0x02];
    many.resize(many.len() + MAX_VALUES, tag::NONE);
    assert!(matches!(decode(&many), Err(ValueError::OutOfBounds { .. })));
    let deep = |n| (0..n).fold(Value::None, |inner, _| Value::List(vec![inner]));
    assert!(decode(&encode(&deep(MAX_DEPTH)).unwrap()).is_ok());
    assert!(encode(&deep(MAX_DEPTH + 1)).is_err());
    let key = Value::Dict(vec![(Value::List(vec![]), Value::None)]);
    assert_eq!(encode(&key), Err(ValueError::BadKey));
}
