import CLinux
import Glibc

/// The addresses of this host's network interfaces, and when they change.
public final class HostAddresses: Sendable {
  /// Readable when addresses have come or gone since `drain`.
  public let descriptor: FileDescriptor

  public init() throws(SystemError) {
    descriptor = FileDescriptor(
      owning: try check(clinux_address_changes(), "watch this host's addresses"))
  }

  /// Forgets the changes that were told: read the addresses after it.
  public func drain() {
    while let part = try? descriptor.read(upTo: 8192), !part.isEmpty {}
  }

  /// Each in 4 or 16 bytes, as it stands in packets.
  public static func current() throws(SystemError) -> Set<[UInt8]> {
    let entry = Int(CLINUX_ADDRESS_ENTRY)
    var capacity = 64
    while true {
      var entries = [UInt8](repeating: 0, count: capacity * entry)
      let count = clinux_host_addresses(&entries, capacity)
      guard count != .max else { throw SystemError(code: errno, "list this host's addresses") }
      guard count > capacity else {
        return Set(
          (0..<count).map { index in
            Array(entries[index * entry + 1..<index * entry + 1 + Int(entries[index * entry])])
          })
      }
      capacity = count * 2
    }
  }
}
