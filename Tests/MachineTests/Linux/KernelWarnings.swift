extension SmallLinux {
  /// Lines of the kernel's log that are not as they should be, and why they may be there.
  private static let tolerated: [(text: String, reason: String)] = [
    ("TSC doesn't count with P0 frequency", "KVM's HWCR of AMD processors has no TscFreqSel"),
    ("Processor Platform Limit event detected", "said at start of a kernel without CPUfreq"),
    ("Consider compiling CPUfreq support", "the same"),
    ("Long readout interval, skipping watchdog", "interpreted kernels come late to look"),
    ("drm_plane_enable_fb_damage_clips() not called", "6.1's virtio-gpu leaves that out"),
    ("Lock dependency validator: Copyright", "the debug variant's lockdep says that it is there"),
    ("... MAX_LOCK", "the same, and what room it has"), ("... CLASSHASH_SIZE", "the same"),
    ("... CHAINHASH_SIZE", "the same"), ("memory used by lock dependency info", "the same"),
    ("memory used for stack traces", "the same"), ("per task-struct memory footprint", "the same"),
  ]

  /// What its kernel warned of until now, or worse, and nobody knows why.
  func warnings() throws -> [String] {
    let log = try run("dmesg -r | grep -E '^<[0-4]>'; true", seconds: 600)
    return log.split(separator: "\n").map(String.init).filter { line in
      !Self.tolerated.contains { line.contains($0.text) }
    }
  }
}
