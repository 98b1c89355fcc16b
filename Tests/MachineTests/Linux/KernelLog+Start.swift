extension KnownLine {
  /// Several that every boot has, with one reason.
  static func always(_ reason: String, _ texts: String...) -> [KnownLine] {
    texts.map { KnownLine($0, reason, isSure: true) }
  }

  /// Several that some hosts, machines or tests bring about.
  static func sometimes(_ reason: String, _ texts: String...) -> [KnownLine] {
    texts.map { KnownLine($0, reason, isSure: false) }
  }
}

extension KernelLog {
  /// What every boot begins with, before there are devices.
  static let start =
    KnownLine.always(
      "which kernel it is, and what it was told",
      "Linux version 6.1.#-carrel (*) (gcc *) *",
      "Command line: console=ttyS0 panic=-1*",
      "Kernel command line: console=ttyS0 panic=-1*")
    + KnownLine.sometimes(
      "which kernel it is, and what it was told",
      "Clearing CPUID bits: cx16 popcnt smap")
    + KnownLine.always(
      "the machine is Carrel's, as its SMBIOS tables say",
      "SMBIOS 2.8 present.",
      "DMI: Carrel Carrel PC, BIOS # *")
    + KnownLine.always(
      "it found what KVM offers",
      "Hypervisor detected: KVM",
      "Booting paravirtualized kernel on KVM",
      "kvm-clock: Using msrs 4b564d01 and 4b564d00")
    + KnownLine.sometimes(
      "it found what KVM offers",
      "kvm-clock: using sched offset of # cycles",
      "kvm-guest: PV spinlocks *",
      "kvm-clock: cpu 0, msr #, primary cpu clock",
      "kvm-guest: stealtime: cpu #, msr #")
    + KnownLine.always(
      "its clocks, and which one it takes",
      "clocksource: kvm-clock: mask: 0xffffffffffffffff max_cycles: #, max_idle_ns: # ns",
      "clocksource: refined-jiffies: mask: 0xffffffff max_cycles: 0xffffffff, max_idle_ns: # ns",
      "clocksource: jiffies: mask: 0xffffffff max_cycles: 0xffffffff, max_idle_ns: # ns",
      "clocksource: acpi_pm: mask: 0xffffff max_cycles: 0xffffff, max_idle_ns: # ns",
      "TSC deadline timer available",
      "rtc_cmos 00:#: registered as rtc0",
      "rtc_cmos 00:#: setting system clock to *",
      "rtc_cmos 00:#: alarms up to one day, y3k, # bytes nvram")
    + KnownLine.sometimes(
      "its clocks, and which one it takes",
      "clocksource: tsc-early: mask: 0xffffffffffffffff max_cycles: #, max_idle_ns: # ns",
      "clocksource: tsc: mask: 0xffffffffffffffff max_cycles: #, max_idle_ns: # ns",
      "clocksource: Switched to clocksource kvm-clock",
      "clocksource: Switched to clocksource tsc-early",
      "clocksource: Switched to clocksource tsc",
      "tsc: Detected #.# MHz processor",
      "tsc: Detected #.# MHz TSC",
      "tsc: Refined TSC clocksource calibration: #.# MHz",
      "sched_clock: Marking stable (#, #)->(#, *#)",
      "rtc_cmos 00:#: RTC can wake from S4")
    + KnownLine.always(
      "parts of the kernel that are ready",
      "devtmpfs: initialized",
      "signal: max sigframe size: #",
      "pid_max: default: # minimum: #",
      "thermal_sys: Registered thermal governor '*'",
      "cpuidle: using governor ladder",
      "Block layer SCSI generic (bsg) driver version 0.4 loaded (major #)",
      "io scheduler mq-deadline registered",
      "io scheduler kyber registered",
      "SCSI subsystem initialized",
      "Console: colour dummy device 80x25",
      "printk: console [ttyS0] enabled",
      "Serial: 8250/16550 driver, * ports, *",
      "00:#: ttyS0 at I/O 0x3f8 (irq = 4, base_baud = 115200) is a 16550A",
      "loop: module loaded")
    + KnownLine.sometimes(
      "parts of the kernel that are ready",
      "devtmpfs: mounted",
      "random: crng init done",
      "printk: console [tty0] enabled")
    + KnownLine.always(
      "the first program is there, and starts",
      "Unpacking initramfs...",
      "Run /init as init process",
      "  with arguments:",
      "    /init",
      "  with environment:",
      "    HOME=/",
      "    TERM=linux")
    + KnownLine.sometimes(
      "the first program is there, and starts",
      "    nokaslr",
      "Trying to unpack rootfs image as initramfs...")

  static let memory =
    KnownLine.always(
      "where RAM is, as whoever starts the kernel tells it",
      "BIOS-provided physical RAM map:",
      "BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable",
      "BIOS-e820: [mem 0x000000000009fc00-0x00000000000fffff] reserved",
      "BIOS-e820: [mem 0x0000000000100000-0x000000000fffffff] usable",
      "BIOS-e820: [mem 0x00000000fec00000-0x00000000ffffffff] reserved",
      "[mem 0x10000000-0xfebfffff] available for PCI devices",
      "e820: update [mem 0x00000000-0x00000fff] usable ==> reserved",
      "e820: remove [mem 0x000a0000-0x000fffff] usable",
      "e820: reserve RAM buffer [mem 0x0009fc00-0x0009ffff]",
      "last_pfn = 0x10000 max_arch_pfn = #")
    + KnownLine.sometimes(
      "where RAM is, as whoever starts the kernel tells it",
      "RAMDISK: [mem #-#]")
    + KnownLine.always(
      "how it is divided and mapped",
      "Zone ranges:",
      "pcpu-alloc: s# r0 d# u# alloc=#*#",
      "pcpu-alloc: [0] *",
      "  DMA32    [mem #-#]",
      "  Normal   empty",
      "Movable zone start for each node",
      "Early memory node ranges",
      "  node   0: [mem #-#]",
      "Initmem setup node 0 [mem #-#]",
      "On node 0, zone DMA32: # pages in unavailable ranges",
      "Built 1 zonelists, mobility grouping on.  Total pages: #",
      "Memory: #K/#K available (#K kernel code, #K rwdata, #K rodata, #K init, #K bss, #K reserved, 0K cma-reserved)",
      "SLUB: HWalign=#, Order=0-3, MinObjects=#, CPUs=#, Nodes=1",
      "workingset: timestamp_bits=# max_order=# bucket_order=#",
      "Freeing initrd memory: #K",
      "Freeing unused kernel image (*) memory: #K",
      "Write protecting the kernel read-only data: #k")
    + KnownLine.sometimes(
      "how it is divided and mapped",
      "mem auto-init: stack:all(zero), heap alloc:off, heap free:off",
      "mem auto-init: stack:off, heap alloc:off, heap free:off",
      "x86/PAT: Configuration [0-7]: WB  WT  UC- UC  WB  WT  UC- UC  ",
      "x86/PAT: Configuration [0-7]: WB  WC  UC- UC  WB  WP  UC- WT  ",
      "x86/mm: Checked W+X mappings: passed, no W+X pages found.")
    + KnownLine.always(
      "sizes of tables, which follow from memory's",
      "Dentry cache hash table entries: # (order: #, # bytes, linear)",
      "Inode-cache hash table entries: # (order: #, # bytes, linear)",
      "Mount-cache hash table entries: # (order: #, # bytes, linear)",
      "Mountpoint-cache hash table entries: # (order: #, # bytes, linear)",
      "futex hash table entries: # (order: *#, # bytes, linear)",
      "IP idents hash table entries: # (order: #, # bytes, linear)",
      "tcp_listen_portaddr_hash hash table entries: # (order: #, # bytes, linear)",
      "Table-perturb hash table entries: # (order: #, # bytes, linear)",
      "TCP established hash table entries: # (order: #, # bytes, linear)",
      "TCP bind hash table entries: # (order: #, # bytes, linear)",
      "TCP: Hash tables configured (established # bind #)",
      "UDP hash table entries: # (order: #, # bytes, linear)",
      "UDP-Lite hash table entries: # (order: #, # bytes, linear)")

  /// Some of these are said on hosts of one vendor only.
  static let processors =
    KnownLine.sometimes(
      "what the processor is",
      "CPU: * (family: #, model: #, stepping: #)",
      "smpboot: CPU0: * (family: #, model: #, stepping: #)",
      "Last level iTLB entries: 4KB #, 2MB #, 4MB #",
      "Last level dTLB entries: 4KB #, 2MB #, 4MB #, 1GB #",
      "FPU: x87 FPU will use FXSAVE",
      "x86/fpu: x87 FPU will use FXSAVE",
      "x86/fpu: Supporting XSAVE feature #: '*'",
      "x86/fpu: xstate_offset[#]: *#, xstate_sizes[#]: *#",
      "x86/fpu: Enabled xstate features #, context size is # bytes, using '*' format.",
      "mce: CPU supports # MCE banks",
      "process: using mwait in idle threads",
      "x86/cpu: User Mode Instruction Prevention (UMIP) activated",
      "x86/split lock detection: \\#DB: sending SIGBUS on user-space bus_locks",
      "Zenbleed: please update your microcode for the most optimal fix",
      "process: using AMD E400 aware idle routine",
      "LVT offset # assigned for vector #")
    + KnownLine.sometimes(
      "what it is open to, as the kernel has no mitigations",
      "GDS: Vulnerable",
      "ITS: Vulnerable",
      "MDS: Vulnerable",
      "MMIO Stale Data: Vulnerable",
      "Register File Data Sampling: Vulnerable",
      "RETBleed: Vulnerable",
      "Speculative Return Stack Overflow: Vulnerable",
      "Speculative Store Bypass: Vulnerable",
      "SRBDS: Vulnerable",
      "TAA: Vulnerable",
      "Transient Scheduler Attacks: Vulnerable",
      "VMSCAPE: Vulnerable",
      "Spectre V1 : Vulnerable: *",
      "Spectre V2 : Vulnerable*",
      "Spectre V2 : Spectre v2 / SpectreRSB mitigation: *")
    + KnownLine.always(
      "interrupt controllers, as ACPI's tables tell of them",
      "NR_IRQS: #, nr_irqs: #, preallocated irqs: #",
      "APIC: Switch to symmetric I/O mode setup",
      "IOAPIC[0]: apic_id #, version 17, address 0xfec00000, GSI 0-23",
      "ACPI: LAPIC_NMI (acpi_id[0xff] dfl dfl lint[0x1])",
      "ACPI: INT_SRC_OVR (bus 0 bus_irq 0 global_irq 2 dfl dfl)",
      "ACPI: INT_SRC_OVR (bus 0 bus_irq # global_irq # high level)",
      "ACPI: Using ACPI (MADT) for SMP configuration information")
    + KnownLine.sometimes(
      "interrupt controllers, as ACPI's tables tell of them",
      "..TIMER: vector=#, apic1=0, pin1=2, apic2=-1, pin2=-1",
      "x2apic enabled",
      "Switched APIC routing to physical x2apic.",
      "Switched APIC routing to physical flat.",
      "Switched APIC routing to cluster x2apic.")
}
