//! Figures that differ by little count as the same: steps of a fourth of an octave.

/// Steps of a fourth of an octave: what lies in one differs by a fifth at most.
pub(crate) fn step(value: u64) -> u32 {
    match value {
        0..=7 => value as u32,
        _ => {
            let octave = value.ilog2();
            let quarter = (value >> (octave - 2)) & 3;
            octave * 4 + quarter as u32
        }
    }
}

/// What a step stands for.
pub(crate) fn middle(step: u32) -> u64 {
    match step {
        0..=7 => u64::from(step),
        _ => {
            let (octave, quarter) = (step / 4, u64::from(step % 4));
            let width = 1u64 << (octave - 2);
            (4 + quarter) * width + width / 2
        }
    }
}

/// The least that lies in a step.
pub(crate) fn bottom(step: u32) -> u64 {
    match step {
        0..=7 => u64::from(step),
        _ => (4 + u64::from(step % 4)) << (step / 4 - 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_stands_for_what_lies_in_it() {
        for value in (0..2000).chain([65_535, 1 << 20, 123_456_789, u64::MAX >> 1]) {
            let middle = middle(step(value));
            assert!(
                middle.abs_diff(value) * 8 <= value.max(8),
                "{value} {middle}"
            );
            let bottom = bottom(step(value));
            assert!(
                bottom <= value && step(bottom) == step(value),
                "{value} {bottom}"
            );
            assert!(
                bottom == 0 || step(bottom - 1) < step(value),
                "{value} {bottom}"
            );
        }
        assert!((1..100_000u64).all(|v| step(v) >= step(v - 1)));
    }
}
