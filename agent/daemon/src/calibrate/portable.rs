//! Kernels that every processor runs, by loops that the compiler makes vectors of: SSE2 on x86-64, NEON on
//! AArch64, which has it always.

use farlane_model::VectorUnit;

use super::matrix::{Fp32, Int16, Kernel};

const ROWS: usize = 4;
const COLUMNS: usize = 8;

/// What the compiler's vectors are here.
const UNIT: VectorUnit = match cfg!(target_arch = "aarch64") {
    true => VectorUnit::Neon,
    false => VectorUnit::Portable,
};

/// 32-bit floats.
pub(super) const FP32: Fp32 = Kernel {
    unit: UNIT,
    rows: ROWS,
    columns: COLUMNS,
    group: 1,
    tile: fp32,
};

/// 8-bit integers, widened to 16 bits when packed.
pub(super) const INT16: Int16 = Kernel {
    unit: UNIT,
    rows: ROWS,
    columns: COLUMNS,
    group: 1,
    tile: int16,
};

fn fp32(a: &[f32], b: &[f32], c: &mut [f32]) {
    let mut sums = [[0.0f32; COLUMNS]; ROWS];
    for (a, b) in a.chunks_exact(ROWS).zip(b.chunks_exact(COLUMNS)) {
        for (row, a) in sums.iter_mut().zip(a) {
            for (sum, b) in row.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
    }
    for (to, row) in c.chunks_exact_mut(COLUMNS).zip(sums) {
        to.copy_from_slice(&row);
    }
}

fn int16(a: &[i16], b: &[i16], c: &mut [i32]) {
    let mut sums = [[0i32; COLUMNS]; ROWS];
    for (a, b) in a.chunks_exact(ROWS).zip(b.chunks_exact(COLUMNS)) {
        for (row, a) in sums.iter_mut().zip(a) {
            for (sum, b) in row.iter_mut().zip(b) {
                *sum += i32::from(*a) * i32::from(*b);
            }
        }
    }
    for (to, row) in c.chunks_exact_mut(COLUMNS).zip(sums) {
        to.copy_from_slice(&row);
    }
}
