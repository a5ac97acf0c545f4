//! Which system calls a sandboxed process may make.
//!
//! An allow-list; what is not on it answers ENOSYS, so that libraries fall back as on an old kernel
//! (glibc does so for `clone3`). Source: the calls that Docker's default profile allows without
//! capabilities (moby/profiles, `default.json`, 2025), less those for keys, tracing, mounting,
//! clocks, io_uring and namespaces.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// How much network a process gets at the level of system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sockets {
    /// Any kind: the network namespace is empty anyway.
    Namespaced,
    /// None at all, beyond the descriptors it was given: there is no network namespace.
    Denied,
}

/// What a process may change of its own namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mounts {
    /// Nothing.
    Denied,
    /// A template's: its workers mount file systems of their own before they give that up.
    Own,
}

/// Flags of clone(2) that make namespaces. Source: linux/sched.h.
const CLONE_NAMESPACES: u64 = 0x7E02_0080;
/// The one kind of namespace that a template's workers make.
const CLONE_NEWNS: u64 = 0x0002_0000;

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// On every architecture.
const ALLOWED: &[i64] = calls! {
    SYS_accept4 SYS_bind SYS_brk SYS_capget SYS_chdir SYS_clock_getres SYS_clock_gettime
    SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect SYS_copy_file_range SYS_dup SYS_dup3
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve
    SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fchdir
    SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr
    SYS_flistxattr SYS_flock SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_getcpu
    SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getitimer
    SYS_getpeername SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid
    SYS_getresuid SYS_getrlimit SYS_get_robust_list SYS_getrusage SYS_getsid SYS_getsockname
    SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid SYS_getxattr SYS_inotify_add_watch
    SYS_inotify_init1 SYS_inotify_rm_watch SYS_ioctl SYS_kill SYS_lgetxattr SYS_linkat SYS_listen
    SYS_listxattr SYS_llistxattr SYS_lseek SYS_madvise SYS_membarrier SYS_memfd_create SYS_mincore
    SYS_mkdirat SYS_mlock SYS_mmap SYS_mprotect SYS_mremap SYS_msync SYS_munlock SYS_munmap
    SYS_nanosleep SYS_newfstatat SYS_openat SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2
    SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2 SYS_prlimit64 SYS_pselect6 SYS_pwrite64
    SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead SYS_readlinkat SYS_readv SYS_recvfrom
    SYS_recvmmsg SYS_recvmsg SYS_renameat2 SYS_restart_syscall SYS_rseq SYS_rt_sigaction
    SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend
    SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sched_get_priority_max
    SYS_sched_get_priority_min SYS_sched_getaffinity SYS_sched_getattr SYS_sched_getparam
    SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_yield
    SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_setitimer SYS_setpgid SYS_setpriority
    SYS_setrlimit SYS_set_robust_list SYS_setsid SYS_setsockopt SYS_set_tid_address SYS_shutdown
    SYS_sigaltstack SYS_signalfd4 SYS_socketpair SYS_splice SYS_statfs SYS_statx SYS_symlinkat
    SYS_sync_file_range SYS_sysinfo SYS_tee SYS_tgkill SYS_timer_create SYS_timer_delete
    SYS_timer_getoverrun SYS_timer_gettime SYS_timer_settime SYS_timerfd_create
    SYS_timerfd_gettime SYS_timerfd_settime SYS_times SYS_tkill SYS_truncate SYS_umask SYS_uname
    SYS_unlinkat SYS_utimensat SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev
};

/// Older calls that only x86-64 has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[i64] = calls! {
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create
    SYS_epoll_wait SYS_eventfd SYS_fork SYS_getdents SYS_getpgrp SYS_inotify_init SYS_lchown
    SYS_link SYS_lstat SYS_mkdir SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename
    SYS_renameat SYS_rmdir SYS_select SYS_signalfd SYS_stat SYS_symlink SYS_time SYS_unlink
    SYS_utime SYS_utimes SYS_vfork
};
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = calls! { SYS_renameat };

/// A filter that could not be compiled: a bug, or an architecture that it does not know.
#[derive(Debug, thiserror::Error)]
#[error("the system-call filter cannot be made for this machine: {0}")]
pub(crate) struct NoFilter(String);

/// The compiled filter.
///
/// *Errors*: an architecture other than x86-64, aarch64 and riscv64.
pub(crate) fn filter(sockets: Sockets, mounts: Mounts) -> Result<BpfProgram, NoFilter> {
    let bad = |e: seccompiler::BackendError| NoFilter(e.to_string());
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED
        .iter()
        .chain(ALLOWED_HERE)
        .map(|call| (*call, vec![]))
        .collect();
    let no_namespace = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(CLONE_NAMESPACES),
        0,
    )
    .map_err(bad)?;
    rules.insert(
        libc::SYS_clone,
        vec![SeccompRule::new(vec![no_namespace]).map_err(bad)?],
    );
    match sockets {
        Sockets::Namespaced => {
            rules.insert(libc::SYS_socket, vec![]);
        }
        Sockets::Denied => {
            for call in [libc::SYS_bind, libc::SYS_connect, libc::SYS_listen] {
                rules.remove(&call);
            }
        }
    }
    if mounts == Mounts::Own {
        let own = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, CLONE_NEWNS);
        let own = SeccompRule::new(vec![own.map_err(bad)?]).map_err(bad)?;
        rules.insert(libc::SYS_unshare, vec![own]);
        rules.insert(libc::SYS_mount, vec![]);
        rules.insert(libc::SYS_capset, vec![]);
    }
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(bad)?;
    let refuse = SeccompAction::Errno(libc::ENOSYS as u32);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch).map_err(bad)?;
    BpfProgram::try_from(filter).map_err(bad)
}

/// The filter as bubblewrap reads it: `struct sock_filter` after `struct sock_filter`.
pub(crate) fn to_bytes(program: &BpfProgram) -> Vec<u8> {
    let mut out = Vec::with_capacity(program.len() * 8);
    for step in program {
        out.extend_from_slice(&step.code.to_ne_bytes());
        out.extend_from_slice(&[step.jt, step.jf]);
        out.extend_from_slice(&step.k.to_ne_bytes());
    }
    out
}
