import Glibc
import LinuxSystem

/// A port on loopback that somebody listens at.
public final class TakenPort: Sendable {
  public let number: UInt16
  private let descriptor: FileDescriptor

  public init() throws {
    descriptor = FileDescriptor(
      owning: socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let raw = descriptor.raw
    // SAFETY: the address is rebound for these calls alone, which get its own size.
    let result = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        bind(raw, address, length) == 0 && listen(raw, 1) == 0
          && getsockname(raw, address, &length) == 0
      }
    }
    guard result else { throw SystemError(code: errno, "take a port") }
    number = address.sin_port.bigEndian
  }
}
