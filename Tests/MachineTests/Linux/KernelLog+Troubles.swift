extension KernelLog {
  /// Lines that tell of trouble, or read as if they did, and why they may be there.
  static let troubles =
    KnownLine.always(
      "a protection's name, or a setting's",
      "NX (Execute Disable) protection: active",
      "ACPI: Early table checksum verification disabled")
    + KnownLine.sometimes(
      "a protection's name, or a setting's",
      "EXT4-fs (*): mounted filesystem* without journal. Quota mode: disabled.",
      "EXT4-fs (*): mounted filesystem with ordered data mode. Quota mode: disabled.")
    + KnownLine.sometimes(
      "KVM's HWCR of AMD processors has no TscFreqSel",
      "[Firmware Bug]: TSC doesn't count with P0 frequency!")
    + KnownLine.sometimes(
      "what the host's processor is open to, and only the host can tell, or mend",
      "GDS: Unknown: Dependent on hypervisor status",
      "MMIO Stale Data: Unknown: No mitigations",
      "Speculative Return Stack Overflow: Vulnerable, no microcode",
      "Speculative Return Stack Overflow: IBPB-extending microcode not applied!",
      "Speculative Return Stack Overflow: WARNING: See https://kernel.org/doc/*",
      "SRBDS: Unknown: Dependent on hypervisor status",
      "AMD Zen1 DIV0 bug detected. Disable SMT for full protection.",
      "AMD Zen1 FPDSS bug detected, enabling mitigation.",
      "BIOS may not properly restore RDRAND after suspend, *")
    + KnownLine.sometimes(
      "what it does with locks across lines, where the host's processor tells of them",
      "x86/split lock detection: \\#AC: crashing the kernel on kernel split_locks and warning on"
        + " user-space split_locks",
      "x86/split lock detection: \\#DB: warning on user-space bus_locks",
      "x86/split lock detection: disabled")
    + KnownLine.sometimes(
      "a processor of one thread", "CPU0: Hyper-Threading is disabled")
    + KnownLine.always(
      "KVM's clock told the rate",
      "Calibrating delay loop (skipped) preset value.. #.# BogoMIPS (lpj=#)")
    + KnownLine.sometimes(
      "KVM does not tell of counters where the machine has none",
      "Performance Events: PMU not available due to virtualization, using software events only.")
    + KnownLine.sometimes(
      "this kernel cannot move",
      "Unknown kernel command line parameters \"nokaslr\", will be passed to user space.")
    + KnownLine.always(
      "the bridge's windows are those of ACPI",
      "PCI: Using host bridge windows from ACPI; if necessary, use \"pci=nocrs\" and report a bug",
      "PCI: Ignoring E820 reservations for host bridge windows")
    + KnownLine.always(
      "the chipset has no PCI Express",
      "acpi PNP0A03:00: PCIe port services disabled; not requesting _OSC control")
    + KnownLine.sometimes(
      "said at start of a kernel without CPUfreq",
      "Warning: Processor Platform Limit event detected, but not handled.",
      "Consider compiling CPUfreq support into your kernel.")
    + KnownLine.sometimes(
      "interpreted kernels come late to look",
      "hrtimer: interrupt took # ns",
      "clocksource: timekeeping watchdog on CPU#: * read-back delay of #ns",
      "clocksource: wd-*-wd read-back delay of #ns, clock-skew test skipped!",
      "clocksource: *Long readout interval, skipping watchdog check: *")
    + KnownLine.sometimes(
      "the TSC runs on while a machine stands, and kvm-clock, which is the guest's, does not",
      "clocksource: timekeeping watchdog on CPU#: Marking clocksource 'tsc' as unstable because"
        + " the skew is too large:",
      "clocksource: *'kvm-clock' wd_nsec: # wd_now: # wd_last: # mask: #",
      "clocksource: *'tsc' cs_nsec: # cs_now: # cs_last: # mask: #",
      "clocksource: *'kvm-clock' (not 'tsc') is current clocksource.",
      "tsc: Marking TSC unstable due to clocksource watchdog")
    + KnownLine.always(
      "this configuration has none for serial ports",
      "Serial: 8250/16550 driver, * ports, IRQ sharing disabled")
    + KnownLine.always(
      "said of every controller that is not Intel's",
      "usb usb#: We don't know the algorithms for LPM for this host, disabling LPM.")
    + KnownLine.always(
      "said of IDE disks",
      "sd #:0:#:0: [sda] Write cache: *, doesn't support DPO or FUA")
    + KnownLine.sometimes(
      "6.1's virtio-gpu leaves that out",
      "* drm_plane_enable_fb_damage_clips() not called")
    + KnownLine.sometimes(
      "the next processor that is started, whose line was taken for a new one of no level",
      " \\##", "  \\##")
    + KnownLine.sometimes(
      "a processor was stopped that no interrupt of that number had come to yet",
      "IRQ fixup: irq # move in progress, old vector #")
    + KnownLine.sometimes(
      "said of a processor that is stopped", "kvm-guest: disable async PF for cpu #")
}
