//! The directives themselves: every one that `[Service]` knows in systemd 252 to 257, each once. What is said here of a directive was
//! tried with the launcher on both.

use super::{Class, Group};

const NO_MOUNTS: &str = "it changes what the launcher sees of the host, and the container has mounts of its own";
const NOT_ROOT: &str = "the launcher makes the container as root";
const OWN_DIRECTORY: &str = "made by systemd, bound into the container at the same path, named in its variable";
const NO_CONTEXT: &str = "it would confine the launcher, which then cannot make the container";

const fn plain(title: &'static str, names: &'static str) -> Group {
    Group { title, class: Class::Plain, free: true, names, why: "", instead: "", values: "" }
}

const fn ours(names: &'static str, how: &'static str) -> Group {
    Group { class: Class::Sysctr, why: how, ..plain("", names) }
}

const fn shared(names: &'static str, why: &'static str, instead: &'static str) -> Group {
    Group { class: Class::Launcher, free: false, why, instead, ..plain("", names) }
}

const fn refused(names: &'static str, why: &'static str, instead: &'static str) -> Group {
    Group { class: Class::Refused, free: false, why, instead, ..plain("", names) }
}

/// An image has to ask for these.
const fn asked(group: Group) -> Group {
    Group { free: false, ..group }
}

/// Of a refused directive: values that change nothing, beside an empty one and "no". Of any other: values that are refused.
const fn but(values: &'static str, group: Group) -> Group {
    Group { values, ..group }
}

/// Every directive of `[Service]`.
pub(super) const TABLE: &[Group] = &[
    // systemd.service(5) and systemd.kill(5): systemd's own bookkeeping of the main process, which is the container's.
    plain(
        "Start, stop and restart",
        "Restart RestartSec RestartSteps RestartMaxDelaySec RestartMode RestartPreventExitStatus RestartForceExitStatus \
         SuccessExitStatus RemainAfterExit ExitType GuessMainPID TimeoutSec TimeoutStartSec TimeoutStopSec TimeoutAbortSec \
         TimeoutStartFailureMode TimeoutStopFailureMode TimeoutCleanSec RuntimeMaxSec RuntimeRandomizedExtraSec \
         StartLimitInterval StartLimitBurst OOMPolicy KillMode KillSignal RestartKillSignal FinalKillSignal WatchdogSignal \
         SendSIGKILL SendSIGHUP ReloadSignal NonBlocking",
    ),
    asked(plain(
        "What it is tied to",
        "Type Sockets OpenFile BusName StartLimitAction FailureAction RebootArgument USBFunctionDescriptors USBFunctionStrings",
    )),
    asked(plain(
        "Commands, run on the host",
        "ExecCondition ExecStartPre ExecStart ExecStartPost ExecReload ExecStop ExecStopPost",
    )),
    // systemd.exec(5): what a process inherits over clone(2) and execve(2).
    plain(
        "Limits and priorities",
        "LimitCPU LimitFSIZE LimitDATA LimitSTACK LimitCORE LimitRSS LimitNOFILE LimitAS LimitNPROC LimitMEMLOCK LimitLOCKS \
         LimitSIGPENDING LimitMSGQUEUE LimitRTTIME CPUAffinity NUMAPolicy NUMAMask TimerSlackNSec CoredumpFilter MemoryKSM \
         Personality",
    ),
    asked(plain(
        "Precedence over other services",
        "OOMScoreAdjust Nice LimitNICE LimitRTPRIO IOSchedulingClass IOSchedulingPriority CPUSchedulingPolicy CPUSchedulingPriority",
    )),
    plain(
        "Logging",
        "SyslogIdentifier SyslogFacility SyslogLevel SyslogLevelPrefix LogLevelMax LogRateLimitIntervalSec LogRateLimitBurst \
         LogExtraFields LogFilterPatterns",
    ),
    asked(plain("", "LogNamespace StandardOutput StandardError")),
    plain("Standard input", "StandardInputText StandardInputData"),
    but(
        "tty tty-force tty-fail",
        asked(Group {
            why: "the terminal would be the launcher's, and the program has a session of its own",
            instead: "`sysctr run`, which has a terminal",
            ..plain("", "StandardInput")
        }),
    ),
    asked(plain("", "TTYPath TTYReset TTYVHangup TTYVTDisallocate TTYRows TTYColumns")),
    plain(
        "Hardening that is inherited",
        "NoNewPrivileges MemoryDenyWriteExecute RestrictRealtime LockPersonality ProtectKernelModules ProtectKernelLogs \
         ProtectClock",
    ),
    asked(plain("A network of its own", "PrivateNetwork NetworkNamespacePath")),
    // systemd.resource-control(5): the control group is the unit's own.
    plain(
        "Resources of the control group",
        "CPUAccounting CPUWeight StartupCPUWeight CPUShares StartupCPUShares CPUQuota CPUQuotaPeriodSec AllowedCPUs \
         StartupAllowedCPUs AllowedMemoryNodes StartupAllowedMemoryNodes MemoryAccounting MemoryHigh StartupMemoryHigh MemoryMax \
         StartupMemoryMax MemorySwapMax StartupMemorySwapMax MemoryZSwapMax StartupMemoryZSwapMax MemoryZSwapWriteback \
         MemoryLimit TasksAccounting TasksMax IOAccounting IOWeight StartupIOWeight IODeviceWeight IOReadBandwidthMax \
         IOWriteBandwidthMax IOReadIOPSMax IOWriteIOPSMax IODeviceLatencyTargetSec BlockIOAccounting BlockIOWeight \
         StartupBlockIOWeight BlockIODeviceWeight BlockIOReadBandwidth BlockIOWriteBandwidth DisableControllers \
         DelegateSubgroup ManagedOOMSwap ManagedOOMMemoryPressure ManagedOOMMemoryPressureLimit \
         ManagedOOMMemoryPressureDurationSec CoredumpReceive",
    ),
    asked(plain(
        "",
        "MemoryMin DefaultMemoryMin MemoryLow StartupMemoryLow DefaultMemoryLow DefaultStartupMemoryLow ManagedOOMPreference Slice",
    )),
    plain(
        "Network and devices of the control group",
        "IPAccounting IPAddressAllow IPAddressDeny SocketBindAllow SocketBindDeny RestrictNetworkInterfaces",
    ),
    asked(plain("", "DeviceAllow DevicePolicy IPIngressFilterPath IPEgressFilterPath BPFProgram NFTSet")),
    // Done by the launcher, or put in by sysctr.
    but(
        "none main exec",
        Group {
            instead: "`all`, which is what a unit gets that leaves it out",
            ..ours("NotifyAccess", "the launcher reports from a process that is no longer the main one")
        },
    ),
    ours("Delegate", "put in where a unit leaves it out"),
    ours("WatchdogSec", "the variables name the process as the program sees itself"),
    ours("FileDescriptorStoreMax FileDescriptorStorePreserve", "descriptors come back as passed sockets do"),
    ours("IgnoreSIGPIPE", "set for the program, and for it alone"),
    ours("MemoryPressureWatch MemoryPressureThresholdSec", "the variables name the file as the program sees it"),
    ours("UMask", "set for the program, and for it alone"),
    ours(
        "ProtectHostname",
        "no container can change the host's name in any case; where config.json gives it one of its own, `yes` keeps the launcher from \
         setting that and the start says so: `private` does not",
    ),
    ours("UnsetEnvironment", "sysctr adds what the launcher's own loader would obey"),
    asked(ours("Environment EnvironmentFile PassEnvironment", "the program gets these variables over the image's own")),
    asked(ours("RuntimeDirectory StateDirectory CacheDirectory LogsDirectory ConfigurationDirectory", OWN_DIRECTORY)),
    ours(
        "RuntimeDirectoryMode StateDirectoryMode CacheDirectoryMode LogsDirectoryMode ConfigurationDirectoryMode \
         RuntimeDirectoryPreserve",
        OWN_DIRECTORY,
    ),
    ours("SetCredential", "bound into the container, read-only, for the program's user"),
    asked(ours(
        "LoadCredential LoadCredentialEncrypted SetCredentialEncrypted ImportCredential",
        "bound into the container, read-only, for the program's user",
    )),
    // In force before the launcher runs.
    shared(
        "CapabilityBoundingSet",
        "the program gets none that the unit takes away; the launcher needs SYS_ADMIN, SETUID, SETGID, SETPCAP, CHOWN, \
         DAC_OVERRIDE and FOWNER, and fails without",
        "container.capabilities in the manifest",
    ),
    shared(
        "SystemCallFilter SystemCallErrorNumber SystemCallLog SystemCallArchitectures",
        "the launcher itself has to mount, change its root and make namespaces (@mount, @privileged, clone3), and fails where it may not",
        "linux.seccomp in config.json.hbs",
    ),
    shared(
        "RestrictAddressFamilies",
        "the launcher talks to systemd over AF_UNIX, and fails without",
        "linux.seccomp in config.json.hbs",
    ),
    shared(
        "RestrictFileSystems",
        "the launcher mounts tmpfs, proc, sysfs, devpts, mqueue and cgroup2, and fails where it may not open them",
        "mounts in config.json.hbs",
    ),
    // Lost on the way, or in the launcher's way.
    but("root 0", refused("User", NOT_ROOT, "container.user in the manifest")),
    but("root 0", refused("Group", NOT_ROOT, "container.user in the manifest, as USER:GROUP")),
    refused("SupplementaryGroups", NOT_ROOT, "the groups of the user in the image's /etc/group"),
    refused("DynamicUser", NOT_ROOT, "container.user in the manifest, or sysusers.hbs"),
    refused("PAMName SetLoginEnvironment", "the session would be the launcher's", "container.env in the manifest"),
    refused("RemoveIPC", "it needs User=", "nothing: what the container shares between processes goes with it"),
    refused("WorkingDirectory", "it is a folder of the host", "container.workdir in the manifest"),
    but(
        "/",
        refused(
            "RootDirectory RootImage RootImageOptions RootImagePolicy RootHash RootHashSignature RootVerity RootEphemeral \
         RootDirectoryStartOnly",
            "the launcher is not in there, and the container's root is the image",
            "the image",
        ),
    ),
    refused("PermissionsStartOnly", "it needs User=", "container.user in the manifest"),
    refused(
        "ExtensionDirectories ExtensionImages ExtensionImagePolicy MountImages MountImagePolicy",
        NO_MOUNTS,
        "container.mounts in the manifest",
    ),
    refused("BindPaths BindReadOnlyPaths", NO_MOUNTS, "container.mounts in the manifest"),
    refused("TemporaryFileSystem", NO_MOUNTS, "container.tmpfs in the manifest"),
    refused(
        "ReadWritePaths ReadOnlyPaths InaccessiblePaths ExecPaths NoExecPaths ReadWriteDirectories ReadOnlyDirectories \
         InaccessibleDirectories",
        NO_MOUNTS,
        "container.mounts in the manifest, with ro or noexec: the container sees no other folder of the host",
    ),
    refused(
        "PrivateTmp",
        "a container has a /tmp and a /var/tmp of its own in any case",
        "nothing, or share a folder by container.mounts",
    ),
    refused("PrivateDevices", "a container has a /dev of its own in any case", "nothing, or DevicePolicy=closed"),
    refused(
        "ProtectSystem ProtectHome",
        "a container sees nothing of the host's /usr, /etc and /home in any case",
        "nothing, or container.mounts with ro for what it does see",
    ),
    refused(
        "ProtectKernelTunables ProtectControlGroups",
        "/proc/sys, /sys and the control groups are read-only in a container in any case",
        "nothing",
    ),
    but(
        "default all",
        refused(
            "ProtectProc ProcSubset",
            "a container has a /proc of its own, with its own processes alone",
            "nothing, or linux.maskedPaths in config.json.hbs to hide more",
        ),
    ),
    refused("PrivateIPC IPCNamespacePath", "a container has an IPC namespace of its own in any case", "nothing"),
    refused(
        "PrivateUsers PrivatePIDs",
        "the launcher could not make the container from within other namespaces",
        "nothing: a container has its own processes; container.user for its user",
    ),
    refused("PrivateMounts MountFlags MountAPIVFS BindLogSockets", NO_MOUNTS, "container.mounts in the manifest"),
    refused(
        "RestrictNamespaces",
        "the launcher could make no namespaces",
        "nothing: the container's seccomp profile keeps it from making more",
    ),
    refused(
        "RestrictSUIDSGID",
        "it takes openat2(2) from the launcher",
        "nothing: setuid files count neither in the image nor in what is mounted",
    ),
    refused("KeyringMode", "a container has a session keyring of its own in any case", "nothing"),
    refused("SecureBits", "the launcher would be no root", "container.capabilities in the manifest"),
    refused(
        "AmbientCapabilities",
        "the launcher sets the program's anew",
        "container.capabilities.add in the manifest",
    ),
    refused("AppArmorProfile", NO_CONTEXT, "process.apparmorProfile in config.json.hbs"),
    refused("SELinuxContext", NO_CONTEXT, "process.selinuxLabel in config.json.hbs"),
    refused("SmackProcessLabel", NO_CONTEXT, "nothing"),
    refused(
        "CPUSchedulingResetOnFork",
        "the policy would end with the launcher, whose child the container is",
        "nothing: leave it out",
    ),
    refused("ExecSearchPath", "the command is the launcher's", "PATH in container.env of the manifest"),
    refused("UtmpIdentifier UtmpMode", "the record would name the launcher", "nothing"),
    refused("PIDFile", "a program in a container knows its number in there, not the host's", "Type=notify"),
];
