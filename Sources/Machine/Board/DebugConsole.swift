import LinuxSystem

/// Text that firmware writes to port 0x402, passed on line by line.
final class DebugConsole {
  private let output: FileDescriptor?
  private var line: [UInt8] = []

  init(isShown: Bool) {
    output = isShown ? try? FileDescriptor.standard(2) : nil
  }

  func put(_ byte: UInt8) {
    guard let output else { return }
    line.append(byte)
    guard byte == 0x0A || line.count >= 512 else { return }
    // Nobody is left to tell when standard error is gone.
    _ = try? output.write(line)
    line = []
  }
}
