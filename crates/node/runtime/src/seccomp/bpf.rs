//! From rules to classic BPF over `struct seccomp_data` (seccomp(2)).
//!
//! The program checks the architecture, then tries the rules in order; the first that matches decides. A long
//! linear program costs nothing per call: the kernel caches unconditional answers in a bitmap per filter.

/// `SECCOMP_RET_ALLOW`.
pub const ALLOW: u32 = 0x7fff_0000;
/// `SECCOMP_RET_KILL_PROCESS`.
pub const KILL_PROCESS: u32 = 0x8000_0000;
/// `SECCOMP_RET_ERRNO`; the number is in the low half.
pub const ERRNO: u32 = 0x0005_0000;

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Equal after masking.
    Masked(u64),
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Argument, from 0 to 5.
    pub arg: u8,
    /// Comparison.
    pub op: Op,
    /// Value.
    pub value: u64,
}

/// A system call, conditions that must all hold, and what then happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Number.
    pub syscall: u32,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// `SECCOMP_RET_*` value.
    pub action: u32,
}

/// Rules with an answer for everything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// In order of precedence.
    pub rules: Vec<Rule>,
    /// Otherwise.
    pub default: u32,
    /// Calls with a number above this answer `ENOSYS`, so that programs fall back from calls younger than the
    /// profile instead of failing with `EPERM`.
    pub newest: u32,
}

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

const LOAD: u16 = 0x20;
const JUMP_EQ: u16 = 0x15;
const JUMP_GT: u16 = 0x25;
const JUMP_GE: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// A `struct sock_filter`.
#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    on_true: u8,
    on_false: u8,
    k: u32,
}

impl Instruction {
    const fn new(code: u16, on_true: u8, on_false: u8, k: u32) -> Self {
        Self { code, on_true, on_false, k }
    }

    fn pack(self) -> u64 {
        u64::from(self.code)
            | u64::from(self.on_true) << 16
            | u64::from(self.on_false) << 24
            | u64::from(self.k) << 32
    }
}

/// Compiles a profile; every element is one `struct sock_filter`.
pub fn compile(profile: &Profile) -> Vec<u64> {
    const NUMBER: u32 = 0;
    const AUDIT_ARCH: u32 = 4;
    let enosys = ERRNO | libc::ENOSYS as u32;
    let mut program = vec![
        Instruction::new(LOAD, 0, 0, AUDIT_ARCH),
        Instruction::new(JUMP_EQ, 1, 0, ARCH),
        Instruction::new(RETURN, 0, 0, KILL_PROCESS),
        Instruction::new(LOAD, 0, 0, NUMBER),
        Instruction::new(JUMP_GT, 0, 1, profile.newest),
        Instruction::new(RETURN, 0, 0, enosys),
    ];
    for rule in &profile.rules {
        let mut body: Vec<Instruction> = rule.conditions.iter().flat_map(condition).collect();
        resolve_failures(&mut body);
        let reload = u8::from(!body.is_empty());
        let skip = body.len() as u8 + 1;
        program.push(Instruction::new(JUMP_EQ, 0, skip, rule.syscall));
        program.extend(body);
        program.push(Instruction::new(RETURN, 0, 0, rule.action));
        if reload == 1 {
            program.push(Instruction::new(LOAD, 0, 0, NUMBER));
        }
    }
    program.push(Instruction::new(RETURN, 0, 0, profile.default));
    program.into_iter().map(Instruction::pack).collect()
}

/// Stands for "this condition fails" until the length of the block is known.
const FAIL: u8 = 255;
/// Stands for "this condition holds".
const HOLD: u8 = 254;

fn condition(condition: &Condition) -> Vec<Instruction> {
    let low_at = 16 + 8 * u32::from(condition.arg);
    let (high, low) = ((condition.value >> 32) as u32, condition.value as u32);
    let load_high = Instruction::new(LOAD, 0, 0, low_at + 4);
    let load_low = Instruction::new(LOAD, 0, 0, low_at);
    let jump = Instruction::new;
    let mut block = match condition.op {
        Op::Eq => vec![load_high, jump(JUMP_EQ, 0, FAIL, high), load_low, jump(JUMP_EQ, 0, FAIL, low)],
        Op::Ne => vec![load_high, jump(JUMP_EQ, 0, HOLD, high), load_low, jump(JUMP_EQ, FAIL, 0, low)],
        Op::Masked(mask) => vec![
            load_high,
            jump(AND, 0, 0, (mask >> 32) as u32),
            jump(JUMP_EQ, 0, FAIL, high),
            load_low,
            jump(AND, 0, 0, mask as u32),
            jump(JUMP_EQ, 0, FAIL, low),
        ],
        Op::Gt | Op::Ge => {
            let code = if condition.op == Op::Gt { JUMP_GT } else { JUMP_GE };
            vec![
                load_high,
                jump(JUMP_GT, HOLD, 0, high),
                jump(JUMP_EQ, 0, FAIL, high),
                load_low,
                jump(code, 0, FAIL, low),
            ]
        }
        Op::Lt | Op::Le => {
            let code = if condition.op == Op::Lt { JUMP_GE } else { JUMP_GT };
            vec![
                load_high,
                jump(JUMP_GT, FAIL, 0, high),
                jump(JUMP_EQ, 0, HOLD, high),
                load_low,
                jump(code, FAIL, 0, low),
            ]
        }
    };
    let length = block.len();
    for (at, instruction) in block.iter_mut().enumerate() {
        let rest = (length - at - 1) as u8;
        for target in [&mut instruction.on_true, &mut instruction.on_false] {
            if *target == HOLD {
                *target = rest;
            }
        }
    }
    block
}

/// Points failures behind the block's `RETURN`, where the number is loaded again.
fn resolve_failures(body: &mut [Instruction]) {
    let length = body.len();
    for (at, instruction) in body.iter_mut().enumerate() {
        let to_reload = (length - at) as u8;
        for target in [&mut instruction.on_true, &mut instruction.on_false] {
            if *target == FAIL {
                *target = to_reload;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[u64], nr: u32, args: [u64; 6]) -> u32 {
        let mut data = vec![nr, ARCH, 0, 0];
        data.extend(args.iter().flat_map(|a| [*a as u32, (*a >> 32) as u32]));
        let (mut at, mut acc) = (0, 0);
        loop {
            let i = program[at];
            let (code, k) = (i as u16, (i >> 32) as u32);
            let (jt, jf) = ((i >> 16) as u8 as usize, (i >> 24) as u8 as usize);
            let jump = |yes: bool| if yes { jt } else { jf };
            at += 1 + match code {
                LOAD => {
                    acc = data[k as usize / 4];
                    0
                }
                AND => {
                    acc &= k;
                    0
                }
                JUMP_EQ => jump(acc == k),
                JUMP_GT => jump(acc > k),
                JUMP_GE => jump(acc >= k),
                _ => return k,
            };
        }
    }

    #[test]
    fn comparisons_agree_with_integers() {
        let values = [0, 1, 5, u64::from(u32::MAX), 1 << 32, (1 << 32) + 5, u64::MAX];
        for op in [Op::Eq, Op::Ne, Op::Gt, Op::Ge, Op::Lt, Op::Le, Op::Masked(0xff_0000_00ff)] {
            for value in values {
                let conditions = vec![Condition { arg: 2, op, value }];
                let rules = vec![
                    Rule { syscall: 7, conditions, action: 1 },
                    Rule { syscall: 7, conditions: vec![], action: 2 },
                    Rule { syscall: 9, conditions: vec![], action: 3 },
                ];
                let program = compile(&Profile { rules, default: 4, newest: 100 });
                for arg in values {
                    let holds = match op {
                        Op::Eq => arg == value,
                        Op::Ne => arg != value,
                        Op::Gt => arg > value,
                        Op::Ge => arg >= value,
                        Op::Lt => arg < value,
                        Op::Le => arg <= value,
                        Op::Masked(mask) => arg & mask == value,
                    };
                    let args = [0, 0, arg, 0, 0, 0];
                    assert_eq!(run(&program, 7, args), if holds { 1 } else { 2 }, "{arg} {op:?} {value}");
                    assert_eq!(run(&program, 9, args), 3);
                    assert_eq!(run(&program, 8, args), 4);
                    assert_eq!(run(&program, 101, args), ERRNO | libc::ENOSYS as u32);
                }
            }
        }
    }
}
