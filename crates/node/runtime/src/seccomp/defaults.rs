//! `RuntimeDefault`: what containers may call, in the tradition of Docker and containerd: everything that ordinary
//! programs use, `EPERM` for what reaches the kernel beyond the container, some of it given back by capabilities.

use super::bpf::{ALLOW, Condition, ERRNO, Op, Profile, Rule};
use super::syscalls::{newest, number};
use crate::capabilities::bit;

/// Allowed for everyone. Names that this architecture lacks are skipped.
const COMMON: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown clock_adjtime
    clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown
    fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate
    futex futex_requeue futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid
    geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresuid getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid
    gettimeofday getuid getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
    io_cancel ioctl io_destroy io_getevents io_pgetevents ioprio_get ioprio_set io_setup io_submit kill
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen
    listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv
    msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause
    pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv
    preadv2 prlimit64 process_mrelease pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat
    readv recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
    restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam
    sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    sendfile sendmmsg sendmsg sendto setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid
    setresgid setresuid setreuid setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address
    setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair
    splice stat statfs statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
    timer_create timer_delete timerfd_create timerfd_gettime timerfd_settime timer_getoverrun timer_gettime
    timer_settime times tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4
    waitid write writev arch_prctl modify_ldt process_vm_readv process_vm_writev ptrace";

/// Given back with a capability.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname setns \
         syslog umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module init_module finit_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "settimeofday clock_settime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// The default profile of a container with these capabilities.
pub fn profile(capabilities: u64) -> Profile {
    let mut rules = Vec::new();
    let mut allow = |names: &str| {
        for number in names.split_whitespace().filter_map(number) {
            rules.push(Rule { syscall: number, conditions: vec![], action: ALLOW });
        }
    };
    allow(COMMON);
    for (capability, names) in BY_CAPABILITY {
        if bit(capability).is_some_and(|b| b & capabilities != 0) {
            allow(names);
        }
    }
    let sys_admin = bit("SYS_ADMIN").is_some_and(|b| b & capabilities != 0);
    rules.extend(conditional(sys_admin));
    Profile { rules, default: ERRNO | libc::EPERM as u32, newest: newest() }
}

fn conditional(sys_admin: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut add = |name: &str, conditions: Vec<Condition>, action| {
        if let Some(syscall) = number(name) {
            rules.push(Rule { syscall, conditions, action });
        }
    };
    // AF_ALG (38) and AF_VSOCK (40) reach past the container's network namespace.
    let family = |op, value| vec![Condition { arg: 0, op, value }];
    add("socket", family(Op::Lt, 38), ALLOW);
    add("socket", family(Op::Eq, 39), ALLOW);
    add("socket", family(Op::Gt, 40), ALLOW);
    for persona in [0x0, 0x0008, 0x0002_0000, 0x0002_0008, 0xffff_ffff] {
        add("personality", vec![Condition { arg: 0, op: Op::Eq, value: persona }], ALLOW);
    }
    if sys_admin {
        add("clone3", vec![], ALLOW);
    } else {
        // No new namespaces. clone3's flags lie behind a pointer, so that programs must fall back to clone.
        let namespaces = 0x7e02_0000;
        add("clone", vec![Condition { arg: 0, op: Op::Masked(namespaces), value: 0 }], ALLOW);
        add("clone3", vec![], ERRNO | libc::ENOSYS as u32);
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known_on_x86_64() {
        if cfg!(target_arch = "x86_64") {
            let extra = BY_CAPABILITY.iter().flat_map(|(_, names)| names.split_whitespace());
            for name in COMMON.split_whitespace().chain(extra) {
                assert!(number(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn capabilities_open_calls() {
        let has = |profile: &Profile, name: &str| {
            profile.rules.iter().any(|r| Some(r.syscall) == number(name) && r.action == ALLOW)
        };
        let plain = profile(0);
        assert!(!has(&plain, "mount") && !has(&plain, "unshare") && !has(&plain, "keyctl"));
        let admin = profile(1 << 21);
        assert!(has(&admin, "mount") && has(&admin, "unshare") && !has(&admin, "keyctl"));
    }
}
