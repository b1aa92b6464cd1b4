use super::*;
use sysctr::model::seccomp;

/// What a program of classic BPF, as seccomp(2) takes it, answers to a call.
fn answer(program: &[u8], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = [number.to_ne_bytes(), arch.to_ne_bytes()].concat();
    data.extend([0; 8]);
    data.extend(args.iter().flat_map(|arg| arg.to_ne_bytes()));
    let word = |at: u32| u32::from_ne_bytes(data[at as usize..at as usize + 4].try_into().unwrap());
    let (mut accumulator, mut at) = (0, 0);
    loop {
        let code = &program[at * INSTRUCTION..][..INSTRUCTION];
        let value = u32::from_ne_bytes(code[4..].try_into().unwrap());
        let jump = |taken: bool| usize::from(if taken { code[2] } else { code[3] });
        at += 1;
        match u16::from_ne_bytes([code[0], code[1]]) {
            0x20 => accumulator = word(value),
            0x54 => accumulator &= value,
            0x05 => at += value as usize,
            0x15 => at += jump(accumulator == value),
            0x25 => at += jump(accumulator > value),
            0x35 => at += jump(accumulator >= value),
            0x45 => at += jump(accumulator & value != 0),
            0x06 => return value,
            other => panic!("instruction {other:#x}"),
        }
    }
}

#[test]
fn the_quicker_filter_answers_each_call_as_the_plain_one() {
    let admin = ["CAP_SYS_ADMIN", "CAP_AUDIT_WRITE"].map(str::to_owned).to_vec();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    // AUDIT_ARCH_*: x86-64, i386, aarch64, arm, and one that no profile names.
    let arches = [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0x8000_0016];
    let values = [0, 1, 8, 9, 16, 0x20000, 0x20008, 0xffff_ffff, 1 << 32, (1 << 32) + 16, u64::MAX];
    for held in [vec![], admin] {
        let filter = seccomp::default(architecture, &held).unwrap();
        let [plain, quick] = [false, true].map(|optimize| build(&filter, optimize).unwrap());
        assert_ne!(plain, quick);
        let mut answers = std::collections::BTreeSet::new();
        for arch in arches {
            for number in (0..1100).chain(0x4000_0000..0x4000_0240).chain([u32::MAX]) {
                // Rules look at the arguments of personality and socket alone: x86-64, i386, aarch64.
                let values = if [135, 41, 136, 359, 92, 198].contains(&number) { &values[..] } else { &values[..1] };
                for (first, third) in values.iter().flat_map(|first| values.iter().map(|third| (*first, *third))) {
                    let args = [first, 0, third, 0, 0, 0];
                    let expected = answer(&plain, arch, number, args);
                    assert_eq!(answer(&quick, arch, number, args), expected, "{arch:#x} {number} {args:?}");
                    answers.insert(expected);
                }
            }
        }
        // Allow, ENOSYS, EPERM, and EINVAL for the audit's socket.
        assert!([0x7fff_0000, 0x0005_0026, 0x0005_0001].iter().all(|one| answers.contains(one)), "{answers:x?}");
        assert_eq!(answers.contains(&0x0005_0016), held.is_empty());
    }
}
