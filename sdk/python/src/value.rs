//! The codec that cannot execute, as Python objects.

use farlane_codec::value::{self, DType, Value};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{
    PyByteArray, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyList, PySet, PyString, PyTuple,
};

/// Decodes bytes of docs/design/value-codec.md; raises ValueError for anything else.
#[pyfunction]
pub fn decode<'py>(py: Python<'py>, encoded: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let value = value::decode(encoded).map_err(|e| PyValueError::new_err(e.to_string()))?;
    object(py, &value)
}

fn object<'py>(py: Python<'py>, value: &Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::None => py.None().into_bound(py),
        Value::Bool(value) => value.into_pyobject(py)?.to_owned().into_any(),
        Value::Int(value) => value.into_pyobject(py)?.into_any(),
        Value::BigInt {
            negative,
            magnitude,
        } => big_int(py, *negative, magnitude)?,
        Value::Float(value) => PyFloat::new(py, *value).into_any(),
        Value::Complex(re, im) => PyComplex::from_doubles(py, *re, *im).into_any(),
        Value::Str(text) => PyString::new(py, text).into_any(),
        Value::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Value::ByteArray(bytes) => PyByteArray::new(py, bytes).into_any(),
        Value::List(items) => PyList::new(py, objects(py, items)?)?.into_any(),
        Value::Tuple(items) => PyTuple::new(py, objects(py, items)?)?.into_any(),
        Value::Set(items) => PySet::new(py, objects(py, items)?)?.into_any(),
        Value::FrozenSet(items) => PyFrozenSet::new(py, objects(py, items)?)?.into_any(),
        Value::Dict(pairs) => {
            let dict = PyDict::new(py);
            for (key, value) in pairs {
                dict.set_item(object(py, key)?, object(py, value)?)?;
            }
            dict.into_any()
        }
        Value::Array { dtype, shape, data } => array(py, dtype, Some(shape), data)?,
        Value::Scalar { dtype, data } => array(py, dtype, None, data)?,
    })
}

fn objects<'py>(py: Python<'py>, items: &[Value<'_>]) -> PyResult<Vec<Bound<'py, PyAny>>> {
    items.iter().map(|item| object(py, item)).collect()
}

fn big_int<'py>(py: Python<'py>, negative: bool, magnitude: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let int = py.import("builtins")?.getattr("int")?;
    let value = int.call_method1("from_bytes", (PyBytes::new(py, magnitude), "big"))?;
    match negative {
        true => value.neg(),
        false => Ok(value),
    }
}

/// An array, writable and its own; without a shape a numpy scalar.
fn array<'py>(
    py: Python<'py>,
    dtype: &DType<'_>,
    shape: Option<&Vec<usize>>,
    data: &[u8],
) -> PyResult<Bound<'py, PyAny>> {
    let numpy = py.import("numpy")?;
    let dtype = numpy.getattr("dtype")?.call1((dtype.as_str(),))?;
    let owned = PyByteArray::new(py, data);
    let Some(shape) = shape else {
        let one = numpy.call_method1("frombuffer", (owned, dtype))?;
        return one.get_item(0);
    };
    let shape = PyTuple::new(py, shape)?;
    // `ndarray(shape, dtype, buffer)` takes empty arrays too, which `frombuffer` refuses.
    numpy.getattr("ndarray")?.call1((shape, dtype, owned))
}
