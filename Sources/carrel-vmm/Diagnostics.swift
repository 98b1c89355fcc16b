import LinuxSystem

/// Messages for whoever started the process.
enum Diagnostics {
  static func report(_ text: String) {
    // Nobody is left to tell when standard error is gone.
    try? FileDescriptor.standard(2).writeAll(Array("carrel-vmm: \(text)\n".utf8))
  }
}
