"""A filter of system calls, as seccomp takes it: what computing and threads need is let through, all else is refused.

A refused call fails with EPERM and the program goes on, as it would where it lacks the right. Python's numbers are the
kernel's: `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`.
"""

import ctypes
import errno
import platform
import struct
from typing import Any

PR_GET_SECCOMP, PR_SET_SECCOMP, FILTER = 21, 22, 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # of classic BPF: the word at, whether it equals, the answer
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16

THREAD = (0x3D0F00, 0x7D0F00)
"""The flags of `clone` with which glibc and musl start a thread."""
DUPLICATE, FLAGS = (0, 1030), (1, 2, 3, 4)  # of `fcntl`: not who is sent signals
FIONBIO, FIOCLEX = 0x5421, 0x5451
AF_UNIX, STREAMS = 1, (1, 1 | 0o2000000, 1 | 0o4000, 1 | 0o2004000)

CALLS = {
    "x86_64": """
        read=0 write=1 close=3 mmap=9 munmap=11 futex=202 brk=12 madvise=28 mprotect=10 mremap=25 clock_gettime=228
        open=2 stat=4 fstat=5 lstat=6 poll=7 lseek=8 rt_sigaction=13 rt_sigprocmask=14 rt_sigreturn=15 pread64=17 readv=19
        writev=20 access=21 pipe=22 select=23 sched_yield=24 dup=32 dup2=33 pause=34 nanosleep=35 alarm=37 setitimer=38
        getpid=39 recvfrom=45 shutdown=48 getsockname=51 getpeername=52 getsockopt=55 exit=60 uname=63 getcwd=79
        readlink=89 gettimeofday=96 getrlimit=97 getrusage=98 sysinfo=99 times=100 getuid=102 getgid=104 geteuid=107
        getegid=108 getppid=110 sigaltstack=131 gettid=186 time=201 sched_getaffinity=204 getdents64=217 set_tid_address=218
        restart_syscall=219 clock_getres=229 clock_nanosleep=230 exit_group=231 epoll_wait=232 epoll_ctl=233 openat=257
        newfstatat=262 readlinkat=267 faccessat=269 pselect6=270 ppoll=271 set_robust_list=273 epoll_pwait=281
        epoll_create1=291 dup3=292 pipe2=293 getrandom=318 membarrier=324 statx=332 rseq=334 faccessat2=439
        ioctl=16 sendto=44 socketpair=53 clone=56 fcntl=72 prlimit64=302 clone3=435
    """,
    "aarch64": """
        read=63 write=64 close=57 mmap=222 munmap=215 futex=98 brk=214 madvise=233 mprotect=226 mremap=216 clock_gettime=113
        getcwd=17 epoll_create1=20 epoll_ctl=21 epoll_pwait=22 dup=23 dup3=24 faccessat=48 openat=56 pipe2=59 getdents64=61
        lseek=62 readv=65 writev=66 pread64=67 pselect6=72 ppoll=73 readlinkat=78 newfstatat=79 fstat=80 exit=93
        exit_group=94 set_tid_address=96 set_robust_list=99 nanosleep=101 setitimer=103 clock_getres=114
        clock_nanosleep=115 sched_getaffinity=123 sched_yield=124 restart_syscall=128 sigaltstack=132 rt_sigaction=134
        rt_sigprocmask=135 rt_sigreturn=139 times=153 uname=160 getrlimit=163 getrusage=165 gettimeofday=169 getpid=172
        getppid=173 getuid=174 geteuid=175 getgid=176 getegid=177 gettid=178 sysinfo=179 getsockname=204 getpeername=205
        recvfrom=207 getsockopt=209 shutdown=210 getrandom=278 membarrier=283 statx=291 rseq=293 faccessat2=439
        ioctl=29 sendto=206 socketpair=199 clone=220 fcntl=25 prlimit64=261 clone3=435
    """,
}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
HELD = {
    "clone": [(0, THREAD)],
    "fcntl": [(1, DUPLICATE + FLAGS)],
    "ioctl": [(1, (FIONBIO, FIOCLEX))],
    "prlimit64": [(2, (0,))],  # it only asks
    "sendto": [(4, (0,))],  # to no address
    "socketpair": [(0, (AF_UNIX,)), (1, STREAMS)],
    "clone3": [(0, ())],
}
"""Calls let through where each of these arguments has one of these values, in its lower half and, if 0, in its upper."""
ERRORS = {"ioctl": errno.ENOTTY, "clone3": errno.ENOSYS}  # with ENOSYS libc goes on to `clone`, whose flags can be seen


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def compiled(libc: Any) -> _Program | None:
    """For `install`, or None where this kernel or machine has no such filter."""
    machine = platform.machine()
    if machine not in CALLS or struct.calcsize("P") != 8 or control(libc, PR_GET_SECCOMP) < 0:
        return None
    code = assembled(machine)
    return _Program(len(code) // 8, code)


def install(libc: Any, program: _Program) -> None:
    """From here on, for this thread and those it starts. OSError where the kernel does not take it."""
    if control(libc, PR_SET_SECCOMP, FILTER, ctypes.addressof(program)):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


def control(libc: Any, *arguments: int) -> int:
    """`prctl`, whose arguments are long."""
    return libc.prctl(*(ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:5]))


def assembled(machine: str) -> bytes:
    """The filter: `struct sock_filter` upon `struct sock_filter`."""
    refuse = _answer(REFUSE | errno.EPERM)
    code = [_load(ARCHITECTURE), *_unless(ARCHITECTURES[machine], [refuse]), _load(NUMBER)]
    for entry in CALLS[machine].split():
        name, _, number = entry.partition("=")
        code += _when(int(number), _held(name) if name in HELD else [_answer(ALLOW)])
    return b"".join([*code, refuse])


def _held(name: str) -> list[bytes]:
    refuse = _answer(REFUSE | ERRORS.get(name, errno.EPERM))
    code: list[bytes] = []
    for argument, values in HELD[name]:
        at = ARGUMENTS + 8 * argument
        if values == (0,):
            code += [_load(at + 4), *_unless(0, [refuse])]
        code.append(_load(at))
        code += [_jump(value, len(values) - i, 0) for i, value in enumerate(values)]
        code.append(refuse)
    return [*code, _answer(ALLOW)]


def _when(value: int, then: list[bytes]) -> list[bytes]:
    return [_jump(value, 0, len(then)), *then]


def _unless(value: int, then: list[bytes]) -> list[bytes]:
    return [_jump(value, len(then), 0), *then]


def _load(at: int) -> bytes:
    return struct.pack("=HBBI", LOAD, 0, 0, at)


def _jump(value: int, equal: int, other: int) -> bytes:
    return struct.pack("=HBBI", EQUAL, equal, other, value)


def _answer(value: int) -> bytes:
    return struct.pack("=HBBI", RETURN, 0, 0, value)
