//! Kernels of x86-64, by the intrinsics of its vector units. Each is tested against its scalar twin in
//! `matrix`, bit by bit.
//!
//! *Source*: Intel Intrinsics Guide 3.6. Tiles: AVX-512 has 32 registers, of which 24 hold 12 rows of 32
//! columns; AVX2 has 16, of which 12 hold 6 rows of 16.

use std::arch::x86_64::*;

use farlane_model::VectorUnit;

use super::matrix::{Bf16, Fp32, Int8, Int16, Kernel};

/// Rows and columns of a tile in AVX-512's registers.
const ROWS: usize = 12;
const COLUMNS: usize = 32;
/// And in AVX2's.
const ROWS_AVX2: usize = 6;
const COLUMNS_AVX2: usize = 16;

/// The widest for 32-bit floats here.
pub(super) fn fp32() -> Option<Fp32> {
    all_fp32().pop()
}

/// All for 32-bit floats here, the widest last.
pub(super) fn all_fp32() -> Vec<Fp32> {
    let mut all = Vec::new();
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        all.push(Kernel {
            unit: VectorUnit::Avx2,
            rows: ROWS_AVX2,
            columns: COLUMNS_AVX2,
            group: 1,
            tile: fp32_avx2 as unsafe fn(&[f32], &[f32], &mut [f32]),
        });
    }
    if is_x86_feature_detected!("avx512f") {
        all.push(Kernel {
            unit: VectorUnit::Avx512,
            rows: ROWS,
            columns: COLUMNS,
            group: 1,
            tile: fp32_avx512,
        });
    }
    all
}

/// For bfloat16, where there is one.
pub(super) fn bf16() -> Option<Bf16> {
    let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
    has.then_some(Kernel {
        unit: VectorUnit::Avx512Bf16,
        rows: ROWS,
        columns: COLUMNS,
        group: 2,
        tile: bf16_avx512,
    })
}

/// For bytes, where there is one.
pub(super) fn int8() -> Option<Int8> {
    let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
    has.then_some(Kernel {
        unit: VectorUnit::Avx512Vnni,
        rows: ROWS,
        columns: COLUMNS,
        group: 4,
        tile: int8_vnni,
    })
}

/// For bytes widened to 16 bits, where there is one.
pub(super) fn int16() -> Option<Int16> {
    is_x86_feature_detected!("avx2").then_some(Kernel {
        unit: VectorUnit::Avx2,
        rows: ROWS_AVX2,
        columns: COLUMNS_AVX2,
        group: 2,
        tile: int16_avx2,
    })
}

/// # Safety
/// The processor has AVX-512F; lengths as [`Kernel::run`] checks them.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f")]
unsafe fn fp32_avx512(a: &[f32], b: &[f32], c: &mut [f32]) {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for (a, b) in a.chunks_exact(ROWS).zip(b.chunks_exact(COLUMNS)) {
        // SAFETY: `b` has 32 floats.
        let (low, high) = unsafe {
            (
                _mm512_loadu_ps(b.as_ptr()),
                _mm512_loadu_ps(b.as_ptr().add(16)),
            )
        };
        for (row, a) in sums.iter_mut().zip(a) {
            let a = _mm512_set1_ps(*a);
            row[0] = _mm512_fmadd_ps(a, low, row[0]);
            row[1] = _mm512_fmadd_ps(a, high, row[1]);
        }
    }
    for (to, row) in c.chunks_exact_mut(COLUMNS).zip(sums) {
        // SAFETY: `to` has 32 floats.
        unsafe {
            _mm512_storeu_ps(to.as_mut_ptr(), row[0]);
            _mm512_storeu_ps(to.as_mut_ptr().add(16), row[1]);
        }
    }
}

/// # Safety
/// The processor has AVX2 and FMA; lengths as [`Kernel::run`] checks them.
#[allow(unsafe_code)]
#[target_feature(enable = "avx2,fma")]
unsafe fn fp32_avx2(a: &[f32], b: &[f32], c: &mut [f32]) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS_AVX2];
    for (a, b) in a.chunks_exact(ROWS_AVX2).zip(b.chunks_exact(COLUMNS_AVX2)) {
        // SAFETY: `b` has 16 floats.
        let (low, high) = unsafe {
            (
                _mm256_loadu_ps(b.as_ptr()),
                _mm256_loadu_ps(b.as_ptr().add(8)),
            )
        };
        for (row, a) in sums.iter_mut().zip(a) {
            let a = _mm256_set1_ps(*a);
            row[0] = _mm256_fmadd_ps(a, low, row[0]);
            row[1] = _mm256_fmadd_ps(a, high, row[1]);
        }
    }
    for (to, row) in c.chunks_exact_mut(COLUMNS_AVX2).zip(sums) {
        // SAFETY: `to` has 16 floats.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), row[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), row[1]);
        }
    }
}

/// # Safety
/// The processor has AVX-512F and AVX512-BF16; lengths as [`Kernel::run`] checks them.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn bf16_avx512(a: &[u16], b: &[u16], c: &mut [f32]) {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for (a, b) in a.chunks_exact(2 * ROWS).zip(b.chunks_exact(2 * COLUMNS)) {
        // SAFETY: `b` has 64 numbers of 2 bytes; a register of bits is any type of them.
        let (low, high): (__m512bh, __m512bh) = unsafe {
            (
                std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(b.as_ptr().cast())),
                std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(
                    b.as_ptr().add(32).cast(),
                )),
            )
        };
        for (row, a) in sums.iter_mut().zip(a.chunks_exact(2)) {
            let pair = i32::from(a[0]) | i32::from(a[1]) << 16;
            // SAFETY: as above.
            let a = unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair)) };
            row[0] = _mm512_dpbf16_ps(row[0], a, low);
            row[1] = _mm512_dpbf16_ps(row[1], a, high);
        }
    }
    for (to, row) in c.chunks_exact_mut(COLUMNS).zip(sums) {
        // SAFETY: `to` has 32 floats.
        unsafe {
            _mm512_storeu_ps(to.as_mut_ptr(), row[0]);
            _mm512_storeu_ps(to.as_mut_ptr().add(16), row[1]);
        }
    }
}

/// # Safety
/// The processor has AVX-512F and AVX512-VNNI; lengths as [`Kernel::run`] checks them.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn int8_vnni(a: &[u8], b: &[i8], c: &mut [i32]) {
    let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
    for (a, b) in a.chunks_exact(4 * ROWS).zip(b.chunks_exact(4 * COLUMNS)) {
        // SAFETY: `b` has 128 bytes.
        let (low, high) = unsafe {
            (
                _mm512_loadu_si512(b.as_ptr().cast()),
                _mm512_loadu_si512(b.as_ptr().add(64).cast()),
            )
        };
        for (row, a) in sums.iter_mut().zip(a.chunks_exact(4)) {
            let a = _mm512_set1_epi32(i32::from_le_bytes([a[0], a[1], a[2], a[3]]));
            row[0] = _mm512_dpbusd_epi32(row[0], a, low);
            row[1] = _mm512_dpbusd_epi32(row[1], a, high);
        }
    }
    for (to, row) in c.chunks_exact_mut(COLUMNS).zip(sums) {
        // SAFETY: `to` has 32 integers of 4 bytes.
        unsafe {
            _mm512_storeu_si512(to.as_mut_ptr().cast(), row[0]);
            _mm512_storeu_si512(to.as_mut_ptr().add(16).cast(), row[1]);
        }
    }
}

/// # Safety
/// The processor has AVX2; lengths as [`Kernel::run`] checks them.
#[allow(unsafe_code)]
#[target_feature(enable = "avx2")]
unsafe fn int16_avx2(a: &[i16], b: &[i16], c: &mut [i32]) {
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS_AVX2];
    for (a, b) in a
        .chunks_exact(2 * ROWS_AVX2)
        .zip(b.chunks_exact(2 * COLUMNS_AVX2))
    {
        // SAFETY: `b` has 32 numbers of 2 bytes.
        let (low, high) = unsafe {
            (
                _mm256_loadu_si256(b.as_ptr().cast()),
                _mm256_loadu_si256(b.as_ptr().add(16).cast()),
            )
        };
        for (row, a) in sums.iter_mut().zip(a.chunks_exact(2)) {
            let pair = i32::from(a[0] as u16) | i32::from(a[1]) << 16;
            let a = _mm256_set1_epi32(pair);
            row[0] = _mm256_add_epi32(row[0], _mm256_madd_epi16(a, low));
            row[1] = _mm256_add_epi32(row[1], _mm256_madd_epi16(a, high));
        }
    }
    for (to, row) in c.chunks_exact_mut(COLUMNS_AVX2).zip(sums) {
        // SAFETY: `to` has 16 integers of 4 bytes.
        unsafe {
            _mm256_storeu_si256(to.as_mut_ptr().cast(), row[0]);
            _mm256_storeu_si256(to.as_mut_ptr().add(8).cast(), row[1]);
        }
    }
}
