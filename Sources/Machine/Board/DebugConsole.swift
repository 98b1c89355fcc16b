import LinuxSystem

/// Text that firmware writes to port 0x402, passed on line by line. Nobody waits for
/// its readers: what they do not take in time is lost beyond some lines.
final class DebugConsole {
  private static let limit = 1 << 16

  private let output: ImpatientOutput?
  private var pending: [UInt8] = []

  init(isShown: Bool) {
    output = isShown ? (try? FileDescriptor.standard(2)).map { ImpatientOutput($0) } : nil
  }

  func put(_ byte: UInt8) {
    guard let output else { return }
    if pending.count < Self.limit { pending.append(byte) }
    guard byte == 0x0A || pending.count % 512 == 0 else { return }
    do {
      pending.removeFirst(try output.write(pending))
    } catch {
      // Nobody is left to tell when standard error is gone.
      pending = []
    }
  }
}
