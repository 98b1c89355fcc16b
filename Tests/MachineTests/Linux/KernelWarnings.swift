import Testing

extension SmallLinux {
  /// Lines of the kernel's log that are not as they should be, and why they may be there.
  private static let tolerated: [(text: String, reason: String)] = [
    ("TSC doesn't count with P0 frequency", "KVM's HWCR of AMD processors has no TscFreqSel"),
    ("Processor Platform Limit event detected", "said at start of a kernel without CPUfreq"),
    ("Consider compiling CPUfreq support", "the same"),
    ("Long readout interval, skipping watchdog", "interpreted kernels come late to look"),
    ("clock-skew test skipped", "the same"),
    ("drm_plane_enable_fb_damage_clips() not called", "6.1's virtio-gpu leaves that out"),
    ("Lock dependency validator: Copyright", "the debug variant's lockdep says that it is there"),
    ("... MAX_LOCK", "the same, and what room it has"), ("... CLASSHASH_SIZE", "the same"),
    ("... CHAINHASH_SIZE", "the same"), ("memory used by lock dependency info", "the same"),
    ("memory used for stack traces", "the same"), ("per task-struct memory footprint", "the same"),
    ("Early table checksum verification disabled", "ACPI's usual"),
    ("Calibrating delay loop (skipped)", "KVM's clock told the rate"),
    ("NX (Execute Disable) protection: active", "a protection's name"),
    ("Ignoring E820 reservations", "the bridge's windows are those of ACPI"),
    ("please report a bug", "the same: how to do without"), ("and report a bug", "the same"),
    ("IRQ sharing disabled", "this configuration has none for serial ports"),
    ("Unknown kernel command line parameters \"nokaslr\"", "this kernel cannot move"),
    ("PCIe port services disabled", "the chipset has no PCI Express"),
    ("don't know the algorithms for LPM", "said of every controller that is not Intel's"),
    ("doesn't support DPO or FUA", "said of IDE disks"),
    ("Quota mode: disabled", "file systems that are mounted have no quotas here"),
    ("PMU not available due to virtualization", "the machine has no counters"),
  ]

  /// Words by which lines of any level tell of trouble.
  private static let trouble =
    "error|fail|unable|time[d ]*out|invalid|bogus|unknown|unsupported|not |cannot|n[^a-z]t |bug|bad |"
    + "warn|missing|conflict|disabl|ignor|corrupt|wrong|unexpected|mismatch|lost|stall|skip|reject"

  /// Lines by which its kernel warned of something until now, or worse, or that tell of
  /// trouble by their words, and nobody knows why.
  func warnings() throws -> [String] {
    let log = try run("dmesg -r | grep -iE '^<[0-4]>|\(Self.trouble)'; true", seconds: 600)
    return log.split(separator: "\n").map(String.init).filter { line in
      !Self.tolerated.contains { line.contains($0.text) }
    }
  }
  /// Fails the test for each line of the kernel's log that is not as it should be.
  func expectNoWarnings(sourceLocation: SourceLocation = #_sourceLocation) throws {
    for line in try warnings() { Issue.record("\(line)", sourceLocation: sourceLocation) }
  }
}
