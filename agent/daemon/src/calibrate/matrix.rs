//! Dense matrix multiplication: which kernel, and the matrices that it multiplies.
//!
//! Owns the choice of the widest unit, packing and the loop over tiles. Leaves the tiles to `x86` and
//! `portable`, and the clock to `crew`.
//!
//! A kernel multiplies a panel of rows by a panel of columns into one tile of the product that stays in
//! registers, as BLAS libraries do (Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication", 2008). Both panels lie packed in the first cache, all of them in the second.

use farlane_model::VectorUnit;

use super::portable;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// Depth of the product. Source: a panel of 32 columns of floats is then 24 KiB, within a first cache of 32.
const DEPTH: usize = 192;
/// Panels of rows and of columns. Source: together at most 300 KiB, within a second cache of 512.
const PANELS: usize = 8;

/// One tile of the product from a panel of rows and one of columns.
pub(super) struct Kernel<A, B, C> {
    pub(super) unit: VectorUnit,
    /// Of the tile.
    pub(super) rows: usize,
    /// Of the tile.
    pub(super) columns: usize,
    /// So many steps of the depth lie together for each row and column.
    pub(super) group: usize,
    /// `a`: depth × rows, `b`: depth × columns, `c`: rows × columns, overwritten.
    ///
    /// # Safety
    /// Only where the processor has what `unit` says; [`Matrices::tile`] sees to the lengths.
    pub(super) tile: unsafe fn(a: &[A], b: &[B], c: &mut [C]),
}

impl<A, B, C> Clone for Kernel<A, B, C> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A, B, C> Copy for Kernel<A, B, C> {}

/// 32-bit floats.
pub(super) type Fp32 = Kernel<f32, f32, f32>;
/// bfloat16 as its 16 bits.
pub(super) type Bf16 = Kernel<u16, u16, f32>;
/// Bytes without a sign by bytes with one, as vendors' units take them.
pub(super) type Int8 = Kernel<u8, i8, i32>;
/// The same, widened when packed.
pub(super) type Int16 = Kernel<i16, i16, i32>;

/// The widest for 32-bit floats.
pub(super) fn fp32() -> Fp32 {
    #[cfg(target_arch = "x86_64")]
    if let Some(kernel) = x86::fp32() {
        return kernel;
    }
    portable::FP32
}

/// The widest that multiplies bfloat16 itself. Without one they are widened when packed and multiplied as
/// 32-bit floats, so that their rate is that of those.
pub(super) fn bf16() -> Option<Bf16> {
    #[cfg(target_arch = "x86_64")]
    return x86::bf16();
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// The widest for 8-bit integers.
pub(super) enum Integers {
    /// One that takes bytes.
    Bytes(Int8),
    /// One that takes them widened.
    Widened(Int16),
}

/// The widest for 8-bit integers.
pub(super) fn int8() -> Integers {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(kernel) = x86::int8() {
            return Integers::Bytes(kernel);
        }
        if let Some(kernel) = x86::int16() {
            return Integers::Widened(kernel);
        }
    }
    Integers::Widened(portable::INT16)
}

/// Numbers from an address that no load of a register crosses a line of the cache at: where they lie by
/// chance, a rate differs by a tenth from one allocation to the next.
pub(super) struct Aligned<T> {
    room: Vec<T>,
    start: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// Bytes. Source: a register of AVX-512, and a line of every x86-64 and most AArch64 processors.
    const TO: usize = 64;

    pub(super) fn new(numbers: impl ExactSizeIterator<Item = T>) -> Self {
        let spare = Self::TO / size_of::<T>();
        let mut room: Vec<T> = Vec::with_capacity(numbers.len() + spare);
        let start = room.as_ptr().align_offset(Self::TO).min(spare);
        room.resize(start, T::default());
        room.extend(numbers);
        Self { room, start }
    }

    pub(super) fn numbers(&self) -> &[T] {
        &self.room[self.start..]
    }

    pub(super) fn numbers_mut(&mut self) -> &mut [T] {
        &mut self.room[self.start..]
    }
}

/// Two packed matrices and their product.
pub(super) struct Matrices<A, B, C> {
    kernel: Kernel<A, B, C>,
    a: Aligned<A>,
    b: Aligned<B>,
    c: Vec<C>,
}

impl<A: Copy + Default, B: Copy + Default, C: Copy + Default> Matrices<A, B, C> {
    /// Filled by `a` and `b`, which get a number from 0 to 6: small and exact in every type.
    pub(super) fn new(kernel: Kernel<A, B, C>, a: fn(u8) -> A, b: fn(u8) -> B) -> Self {
        // 5 and 3 have no factor with 7, so every row and column has every number.
        let fill = |step: usize| move |i: usize| (i * step % 7) as u8;
        let (of_a, of_b) = (fill(5), fill(3));
        Self {
            a: Aligned::new((0..PANELS * kernel.rows * DEPTH).map(|i| a(of_a(i)))),
            b: Aligned::new((0..PANELS * kernel.columns * DEPTH).map(|i| b(of_b(i)))),
            c: vec![C::default(); PANELS * PANELS * kernel.rows * kernel.columns],
            kernel,
        }
    }

    /// Operations of one multiplication: a product and a sum each.
    pub(super) fn operations(&self) -> u64 {
        (2 * PANELS * PANELS * self.kernel.rows * self.kernel.columns * DEPTH) as u64
    }

    /// Multiplies once.
    pub(super) fn multiply(&mut self) {
        let (rows, columns) = (self.kernel.rows * DEPTH, self.kernel.columns * DEPTH);
        let tile = self.kernel.rows * self.kernel.columns;
        let mut product = self.c.chunks_exact_mut(tile);
        for b in self.b.numbers().chunks_exact(columns) {
            for a in self.a.numbers().chunks_exact(rows) {
                if let Some(c) = product.next() {
                    self.kernel.run(a, b, c);
                }
            }
        }
        std::hint::black_box(&mut self.c);
    }
}

impl<A, B, C> Kernel<A, B, C> {
    /// One tile.
    ///
    /// *Panics*: the lengths do not go together.
    #[allow(unsafe_code)]
    pub(super) fn run(&self, a: &[A], b: &[B], c: &mut [C]) {
        let whole = a.len().is_multiple_of(self.rows * self.group);
        assert!(whole && c.len() == self.rows * self.columns);
        let whole = b.len().is_multiple_of(self.columns);
        assert!(whole && a.len() / self.rows == b.len() / self.columns);
        // SAFETY: kernels are handed out by `x86` after asking the processor, or portable; lengths as above.
        unsafe { (self.tile)(a, b, c) }
    }
}

/// Every one for 32-bit floats that this processor has.
#[cfg(test)]
pub(super) fn all_fp32() -> Vec<Fp32> {
    let mut all = vec![portable::FP32];
    #[cfg(target_arch = "x86_64")]
    all.extend(x86::all_fp32());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every kernel must yield: sums in the order of depth, for each element of the tile.
    fn twin<A: Copy, B: Copy, C: Copy + Default>(
        kernel: &Kernel<A, B, C>,
        (a, b): (&[A], &[B]),
        add: impl Fn(C, A, B) -> C,
    ) -> Vec<C> {
        let Kernel {
            rows,
            columns,
            group,
            ..
        } = *kernel;
        let mut c = vec![C::default(); rows * columns];
        for step in 0..a.len() / rows {
            let (block, within) = (step / group, step % group);
            for row in 0..rows {
                for column in 0..columns {
                    let left = a[(block * rows + row) * group + within];
                    let right = b[(block * columns + column) * group + within];
                    let sum = &mut c[row * columns + column];
                    *sum = add(*sum, left, right);
                }
            }
        }
        c
    }

    /// Numbers between -1 and 1 that no short sum is exact of.
    fn noise(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed;
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        }
    }

    #[test]
    fn floats_are_multiplied_as_their_scalar_twin_does() {
        for kernel in all_fp32() {
            let mut next = noise(7);
            let a: Vec<f32> = (0..kernel.rows * DEPTH).map(|_| next()).collect();
            let b: Vec<f32> = (0..kernel.columns * DEPTH).map(|_| next()).collect();
            let mut c = vec![f32::NAN; kernel.rows * kernel.columns];
            kernel.run(&a, &b, &mut c);
            let fused = matches!(kernel.unit, VectorUnit::Avx2 | VectorUnit::Avx512);
            let wanted = match fused {
                true => twin(&kernel, (&a, &b), |sum, x, y| x.mul_add(y, sum)),
                false => twin(&kernel, (&a, &b), |sum, x, y| sum + x * y),
            };
            let bits = |all: &[f32]| all.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&c), bits(&wanted), "{}", kernel.unit.name());
        }
    }

    fn widened(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    #[test]
    fn bfloat16_is_multiplied_as_its_scalar_twin_does() {
        let Some(kernel) = bf16() else {
            println!("this processor does not multiply bfloat16");
            return;
        };
        // Whole numbers: every sum is exact, so the order of the unit does not matter.
        let whole = |seed: usize, n: usize| -> Vec<u16> {
            (0..n)
                .map(|i| (((i * seed % 17) as f32 - 8.0).to_bits() >> 16) as u16)
                .collect()
        };
        let (rows, columns) = (kernel.rows, kernel.columns);
        let (a, b) = (whole(5, rows * DEPTH), whole(11, columns * DEPTH));
        let add = |sum: f32, x: u16, y: u16| widened(x).mul_add(widened(y), sum);
        let mut c = vec![f32::NAN; rows * columns];
        kernel.run(&a, &b, &mut c);
        assert_eq!(c, twin(&kernel, (&a, &b), add));
        // Others: within a rounding of each of the 192 sums, none of which exceeds 192.
        let mut next = noise(3);
        let a: Vec<u16> = (0..rows * DEPTH)
            .map(|_| (next().to_bits() >> 16) as u16)
            .collect();
        let b: Vec<u16> = (0..columns * DEPTH)
            .map(|_| (next().to_bits() >> 16) as u16)
            .collect();
        kernel.run(&a, &b, &mut c);
        let bound = 192.0 * 192.0 * f32::EPSILON;
        for (got, wanted) in c.iter().zip(twin(&kernel, (&a, &b), add)) {
            assert!((got - wanted).abs() <= bound, "{got} for {wanted}");
        }
    }

    fn exact<A: Copy + Into<i32>, B: Copy + Into<i32>>(
        kernel: &Kernel<A, B, i32>,
        a: fn(u8) -> A,
        b: fn(i8) -> B,
    ) {
        // 89 and 57 have no factor with 256: every byte comes, the extremes too.
        let a: Vec<A> = (0..kernel.rows * DEPTH)
            .map(|i| a((i * 89) as u8))
            .collect();
        let b: Vec<B> = (0..kernel.columns * DEPTH)
            .map(|i| b((i * 57) as i8))
            .collect();
        let mut c = vec![-1; kernel.rows * kernel.columns];
        kernel.run(&a, &b, &mut c);
        let add = |sum: i32, x: A, y: B| sum + x.into() * y.into();
        assert_eq!(c, twin(kernel, (&a, &b), add), "{}", kernel.unit.name());
    }

    #[test]
    fn integers_are_multiplied_as_their_scalar_twin_does() {
        exact(&portable::INT16, i16::from, i16::from);
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(kernel) = x86::int16() {
                exact(&kernel, i16::from, i16::from);
            }
            if let Some(kernel) = x86::int8() {
                exact(&kernel, |x| x, |x| x);
            }
        }
    }

    #[test]
    fn whole_matrices_are_filled_and_multiplied() {
        let mut matrices = Matrices::new(fp32(), f32::from, f32::from);
        matrices.multiply();
        assert_eq!(matrices.c.len(), matrices.operations() as usize / 2 / DEPTH);
        // Each sum is of 192 products of numbers from 0 to 6, mean 9.
        let mean = matrices.c.iter().sum::<f32>() / matrices.c.len() as f32;
        assert!((1600.0..1900.0).contains(&mean), "{mean}");
        assert!(matrices.c.iter().all(|sum| *sum > 0.0));
        assert_eq!(matrices.b.numbers().as_ptr().align_offset(64), 0);
    }

    #[test]
    #[should_panic(expected = "a.len() / self.rows == b.len() / self.columns")]
    fn panels_of_different_depth_are_refused() {
        let kernel = fp32();
        let a = vec![0.0; kernel.rows * 4];
        let b = vec![0.0; kernel.columns * 2];
        kernel.run(&a, &b, &mut vec![0.0; kernel.rows * kernel.columns]);
    }
}
