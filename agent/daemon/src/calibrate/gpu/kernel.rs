//! What a GPU is given to multiply, as text for its driver's assembler.
//!
//! *Source*: PTX ISA 8.8, "fma", "mma.m16n8k16" and "mma.m16n8k32". Each text assembles for every capability from
//! `least` on.

use std::fmt::Write;

/// Threads of a block.
pub(super) const BLOCK: u32 = 256;
/// Blocks of a multiprocessor. Source: 1,024 threads are the least that any multiprocessor holds at once, so that
/// all blocks run together.
pub(super) const BLOCKS: u32 = 4;
/// Most rounds: what a kernel counts to stays exact in 32-bit floats, 2^24.
pub(super) const MOST_ROUNDS: u32 = 1 << 18;

/// One kind of product: chains of multiply-add over tiles that stay in registers.
pub(super) struct Kernel {
    /// Least compute capability.
    pub least: (u32, u32),
    /// All operands: ones of its type.
    pub ones: u32,
    /// Multiplications and additions of one thread in one round.
    pub operations: u64,
    /// What every thread answers after so many rounds.
    pub answer: fn(u32) -> u32,
    /// Its text.
    pub text: fn() -> String,
}

/// Sixteen chains of 32-bit floats, four steps a round.
pub(super) const FP32: Kernel = Kernel {
    least: (5, 0),
    ones: 0x3f80_0000,
    operations: 16 * 4 * 2,
    // Chains begin at 0 to 15, and one is added each step.
    answer: |rounds| ((4 * rounds + 15) as f32).to_bits(),
    text: || {
        let begin = (0..16).map(|n| format!("mov.f32 %c{n}, {};", float(n)));
        let step = (0..16).map(|n| format!("fma.rn.f32 %c{n}, %x, %c{n}, %x;"));
        let head = "mov.b32 %x, %p;\n".to_owned() + &lines(begin);
        let most = (1..16).map(|n| format!("max.f32 %c0, %c0, %c{n};"));
        let body = lines(step).repeat(4);
        frame("6.0", "sm_50", "f32", &head, &body, &lines(most))
    },
};

/// Four tiles of 16 × 8 a warp, two products with 16 bfloat16 deep a round.
pub(super) const BF16: Kernel = Kernel {
    least: (8, 0),
    ones: 0x3f80_3f80,
    operations: 4 * 2 * (16 * 8 * 16 * 2) / 32,
    // Tiles begin at 0 to 3; a product of ones adds its depth.
    answer: |rounds| ((32 * rounds + 3) as f32).to_bits(),
    text: || {
        let begin = (0..16).map(|n| format!("mov.f32 %c{n}, {};", float(n / 4)));
        let most = (1..16).map(|n| format!("max.f32 %c0, %c0, %c{n};"));
        let body = products("m16n8k16.row.col.f32.bf16.bf16.f32").repeat(2);
        frame("7.0", "sm_80", "f32", &lines(begin), &body, &lines(most))
    },
};

/// Four tiles of 16 × 8 a warp, two products with 32 bytes deep a round.
pub(super) const INT8: Kernel = Kernel {
    least: (8, 0),
    ones: 0x0101_0101,
    operations: 4 * 2 * (16 * 8 * 32 * 2) / 32,
    answer: |rounds| 64 * rounds + 3,
    text: || {
        let begin = (0..16).map(|n| format!("mov.b32 %c{n}, {};", n / 4));
        let most = (1..16).map(|n| format!("max.s32 %c0, %c0, %c{n};"));
        let body = products("m16n8k32.row.col.s32.s8.s8.s32").repeat(2);
        frame("7.0", "sm_80", "b32", &lines(begin), &body, &lines(most))
    },
};

fn lines(all: impl Iterator<Item = String>) -> String {
    all.map(|line| line + "\n").collect()
}

fn float(n: u32) -> String {
    format!("0f{:08x}", (n as f32).to_bits())
}

/// One product for each of four tiles.
fn products(shape: &str) -> String {
    let tile = |n: u32| {
        (4 * n..4 * n + 4)
            .map(|c| format!("%c{c}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    lines((0..4).map(|n| {
        let tile = tile(n);
        format!("mma.sync.aligned.{shape} {{{tile}}}, {{%p, %p, %p, %p}}, {{%p, %p}}, {{{tile}}};")
    }))
}

/// A kernel `work(out, rounds, ones)`: `begin`, then `body` so often, then `end`, whose `%c0` is written for each thread.
/// Operands come as an argument, so that no assembler works the answer out beforehand.
fn frame(version: &str, target: &str, of: &str, begin: &str, body: &str, end: &str) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        ".version {version}\n.target {target}\n.address_size 64\n\
         .visible .entry work(.param .u64 out, .param .u32 rounds, .param .b32 ones)\n{{\n\
         .reg .pred %more;\n.reg .b32 %n, %p, %t, %b, %w;\n.reg .b64 %o, %i;\n\
         .reg .f32 %x;\n.reg .{of} %c<16>;\n\
         ld.param.u64 %o, [out];\nld.param.u32 %n, [rounds];\nld.param.b32 %p, [ones];\n\
         {begin}again:\n{body}sub.u32 %n, %n, 1;\nsetp.ne.u32 %more, %n, 0;\n@%more bra again;\n\
         {end}mov.b32 %p, %c0;\nmov.u32 %t, %tid.x;\nmov.u32 %b, %ctaid.x;\nmov.u32 %w, %ntid.x;\n\
         mad.lo.u32 %t, %b, %w, %t;\nmul.wide.u32 %i, %t, 4;\nadd.u64 %o, %o, %i;\n\
         st.global.b32 [%o], %p;\nret;\n}}\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_stays_exact_and_the_texts_hold_every_operation() {
        for (kernel, steps) in [(FP32, 4 * 16), (BF16, 2 * 4), (INT8, 2 * 4)] {
            let text = (kernel.text)();
            let named = text.matches("fma.rn").count() + text.matches("mma.sync").count();
            assert_eq!(named, steps);
            // One thread's share of a warp's product, or its own multiply-add.
            let each = kernel.operations / steps as u64;
            assert!([2, 128, 256].contains(&each), "{each}");
            assert!(text.starts_with(".version") && text.is_ascii());
        }
        assert_eq!(f32::from_bits((BF16.answer)(MOST_ROUNDS)), 8_388_611.0);
        assert_eq!(f32::from_bits((FP32.answer)(2)), 23.0);
        assert_eq!((INT8.answer)(1), 67);
    }
}
