"""The system calls that the outer profile refuses, by number. tests/hostile/calls.py makes them.

Every call has arguments that are wrong on purpose, or that concern the process alone: where it gets through, nothing
happens but another error.
"""

NOBODY = 0x7FFFFFFF  # no process has this pid, no ipc object this key
ALL = 0xFFFFFFFF  # flags that do not exist
UTS, CGROUP, TIME = 0x4000000, 0x2000000, 0x80

#: catalogue entry, number on x86_64, arguments.
REFUSED = {
    "unshare_uts": ("C1", 272, UTS), "unshare_cgroup": ("C1", 272, CGROUP), "unshare_time": ("C1", 272, TIME),
    "unshare_files": ("C1", 272, 0x400), "unshare_user_and_uts": ("C1", 272, 0x10000000 | UTS),
    "clone_uts": ("C2", 56, UTS | 0x10000), "clone_cgroup": ("C2", 56, CGROUP | 0x10000), "clone3": ("C2", 435, 0, 0),
    "clone_parent": ("C2", 56, 0x8000 | 0x10000), "clone_ptrace": ("C2", 56, 0x2000 | 0x10000),
    "setns_uts": ("C3", 308, -1, UTS), "setns_cgroup": ("C3", 308, -1, CGROUP), "setns_any": ("C3", 308, -1, 0),
    "umount2": ("C4", 166, 0, -1), "pivot_root": ("C4", 155, 0, 0), "chroot": ("C4", 161, 0),
    "fsopen": ("C5", 430, 0, 0), "fsconfig": ("C5", 431, -1, ALL, 0, 0, 0), "fsmount": ("C5", 432, -1, 0, 0),
    "fspick": ("C5", 433, -1, 0, ALL), "move_mount": ("C5", 429, -1, 0, -1, 0, ALL),
    "open_tree": ("C5", 428, -1, 0, ALL), "mount_setattr": ("C5", 442, -1, 0, ALL, 0, 0),
    "ptrace": ("C6", 101, 16, NOBODY), "kcmp": ("C6", 312, NOBODY, NOBODY, 0, 0, 0),
    "pidfd_getfd": ("C6", 438, -1, 0, ALL), "prlimit_of_another": ("C6", 302, NOBODY, 7, 0, 0),
    "process_vm_readv": ("C7", 310, NOBODY, 0, 0, 0, 0, ALL), "process_vm_writev": ("C7", 311, NOBODY, 0, 0, 0, 0, ALL),
    "process_madvise": ("C7", 440, -1, 0, 0, 0, ALL), "process_mrelease": ("C7", 448, -1, ALL),
    "keyctl": ("C10", 250, 9999), "add_key": ("C10", 248, 0, 0, 0, 0, 0), "request_key": ("C10", 249, 0, 0, 0, 0),
    "bpf": ("C11", 321, 9999, 0, 0), "perf_event_open": ("C12", 298, 0, 0, -1, -1, ALL),
    "userfaultfd": ("C13", 323, ALL),
    "io_uring_setup": ("C14", 425, 0, 0), "io_uring_enter": ("C14", 426, -1, 0, 0, ALL),
    "io_uring_register": ("C14", 427, -1, 9999, 0, 0), "io_setup": ("C14", 206, 0, 0),
    "io_submit": ("C14", 209, 0, 0, 0), "io_getevents": ("C14", 208, 0, 0, 0, 0, 0),
    "init_module": ("C15", 175, 0, 0, 0), "finit_module": ("C15", 313, -1, 0, ALL), "delete_module": ("C15", 176, 0, 0),
    "kexec_load": ("C16", 246, 0, ALL, 0, ALL), "kexec_file_load": ("C16", 320, -1, -1, 0, 0, ALL),
    "settimeofday": ("C17", 164, 1, 0), "clock_settime": ("C17", 227, 99, 0), "adjtimex": ("C17", 159, 0),
    "clock_adjtime": ("C17", 305, 99, 0), "reboot": ("C18", 169, 0, 0, 0, 0),
    "swapon": ("C19", 167, 0, 0), "swapoff": ("C19", 168, 0),
    "personality_no_randomize": ("C21", 135, 0x40000), "personality_read_implies_exec": ("C21", 135, 0x400000),
    "acct": ("C22", 163, 1), "quotactl": ("C22", 179, ALL, 1, 0, 0), "quotactl_fd": ("C22", 443, -1, ALL, 0, 0),
    "syslog": ("C22", 103, 99, 0, 0), "iopl": ("C22", 172, 99), "ioperm": ("C22", 173, NOBODY, 1, 1),
    "modify_ldt": ("C22", 154, 99, 0, 0), "ustat": ("C22", 136, 0, 0), "sysfs": ("C22", 139, 99),
    "lookup_dcookie": ("C22", 212, 0, 0, 0), "uselib": ("C22", 134, 0), "nfsservctl": ("C22", 180, 0, 0, 0),
    "sysctl": ("C22", 156, 0),
    "socket_inet": ("C23", 41, 2, 99, 0), "socket_inet6": ("C23", 41, 10, 99, 0), "socket_raw": ("C23", 41, 2, 3, 255),
    "socket_netlink": ("C23", 41, 16, 99, 0), "socket_packet": ("C23", 41, 17, 99, 0),
    "socket_key": ("C23", 41, 15, 99, 0), "socket_alg": ("C23", 41, 38, 99, 0), "socket_vsock": ("C23", 41, 40, 99, 0),
    "socket_tipc": ("C23", 41, 30, 99, 0), "socket_bluetooth": ("C23", 41, 31, 99, 0),
    "socket_rxrpc": ("C23", 41, 33, 99, 0), "socket_xdp": ("C23", 41, 44, 99, 0),
    "socket_no_family": ("C23", 41, 0, 1, 0), "socketpair_inet": ("C23", 53, 2, 1, 0, 0),
    "mknod": ("C28", 133, 0, 0, 0), "mknodat": ("C28", 259, -1, 0, 0, 0),
    "setuid": ("C29", 105, -1), "setgid": ("C29", 106, -1), "setreuid": ("C29", 113, -1, -1),
    "setregid": ("C29", 114, -1, -1), "setresuid": ("C29", 117, -1, -1, -1), "setresgid": ("C29", 119, -1, -1, -1),
    "setfsuid": ("C29", 122, -1), "setfsgid": ("C29", 123, -1), "setgroups": ("C29", 116, NOBODY, 0),
    "chown": ("C29", 92, 0, -1, -1), "fchown": ("C29", 93, -1, -1, -1), "lchown": ("C29", 94, 0, -1, -1),
    "fchownat": ("C29", 260, -1, 0, -1, -1, 0), "setxattr": ("C29", 188, 0, 0, 0, 0, 0),
    "lsetxattr": ("C29", 189, 0, 0, 0, 0, 0), "fsetxattr": ("C29", 190, -1, 0, 0, 0, 0),
    "memfd_create": ("C38", 319, 0, ALL), "memfd_secret": ("C38", 447, ALL), "execveat": ("C38", 322, -1, 0, 0, 0, 0),
    "prctl_speculation": ("C41", 157, 53, 99, 0, 0, 0), "prctl_timerslack": ("C41", 157, 29, 0, 0, 0, 0),
    "prctl_core_scheduling": ("C41", 157, 62, 99, 0, 0, 0), "ioctl_sti": ("C41", 16, -1, 0x5412, 0),
    "ioctl_linux": ("C41", 16, -1, 0x541C, 0), "ioctl_setd": ("C41", 16, -1, 0x5423, 0),
    "ioctl_sti_high_bit": ("C41", 16, -1, 0x1_0000_5412, 0),
    "shmget": ("C43", 29, NOBODY, 0, 0), "shmat": ("C43", 30, -1, 0, 0), "shmctl": ("C43", 31, -1, 0, 0),
    "semget": ("C43", 64, NOBODY, 0, 0), "semop": ("C43", 65, -1, 0, 0), "semtimedop": ("C43", 220, -1, 0, 0, 0),
    "semctl": ("C43", 66, -1, 0, 0), "msgget": ("C43", 68, NOBODY, 0), "msgsnd": ("C43", 69, -1, 0, 0, 0),
    "msgrcv": ("C43", 70, -1, 0, 0, 0, 0), "msgctl": ("C43", 71, -1, 0, 0), "mq_open": ("C43", 240, 0, 0, 0, 0),
    "mq_unlink": ("C43", 241, 0), "mq_timedsend": ("C43", 242, -1, 0, 0, 0, 0), "mq_notify": ("C43", 244, -1, 0),
    "splice": ("C43", 275, -1, 0, -1, 0, 1, 0), "tee": ("C43", 276, -1, -1, 1, 0), "vmsplice": ("C43", 278, -1, 0, 1, 0),
    "fanotify_init": ("C44", 300, ALL, 0), "fanotify_mark": ("C44", 301, -1, ALL, 0, -1, 0),
    "inotify_init1": ("C44", 294, ALL), "inotify_add_watch": ("C44", 254, -1, 0, 0),
    "name_to_handle_at": ("C44", 303, -1, 0, 0, 0, 0), "open_by_handle_at": ("C44", 304, -1, 0, 0),
    "setpriority": ("B", 141, 99, 0, 0), "sched_setaffinity": ("B", 203, NOBODY, 0, 0), "nice_io": ("B", 251, 99, 0, 0),
    "sched_setparam": ("B", 142, -1, 0), "sched_setattr": ("B", 314, 0, 0, 0), "mlockall": ("B", 151, 99),
    "mlock2": ("B", 325, 0, 0, 99), "mbind": ("B", 237, 0, 0, 99, 0, 0, ALL), "set_mempolicy": ("B", 238, 99, 0, 0),
    "move_pages": ("B", 279, NOBODY, 0, 0, 0, 0, ALL), "migrate_pages": ("B", 256, NOBODY, 0, 0, 0),
    "timer_create": ("B", 222, 99, 0, 0), "syncfs": ("B", 306, -1), "sethostname": ("C1", 170, 0, -1),
    "setdomainname": ("C1", 171, 0, -1), "remap_file_pages": ("B", 216, 1, 0, 0, 0, 0),
    "statmount": ("C34", 457, 0, 0, 0, ALL), "listmount": ("C34", 458, 0, 0, 0, ALL), "mseal": ("C41", 462, 1, 0, ALL),
    "open_tree_attr": ("C5", 467, -1, 0, ALL, 0, 0), "not_yet_there": ("C41", 999),
}  # fmt: skip

#: Not to be tried where they would get through.
REFUSED_ONLY_INSIDE = {
    "vhangup": ("C22", 153), "sync": ("B", 162), "munlockall": ("B", 152), "inotify_init": ("C44", 253),
    "prctl_mm": ("C41", 157, 35, 99, 0, 0, 0), "memfd_of_no_name": ("C38", 319, 0, 0), "clone_uts_fork": ("C2", 56, UTS | 17),
    "socket_inet_stream": ("C24", 41, 2, 1, 0),
}  # fmt: skip
