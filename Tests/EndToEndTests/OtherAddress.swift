import Glibc
import Testing

/// Addresses of this host that are not loopback.
enum OtherAddress {
  /// An IPv4 address, if there is one.
  static let first: String? = {
    var list: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&list) == 0 else { return nil }
    defer { freeifaddrs(list) }
    // SAFETY: the list stays until it is freed, after the last entry was read.
    return sequence(first: list, next: { $0?.pointee.ifa_next })
      .lazy.compactMap { $0.flatMap(text) }.first { !$0.hasPrefix("127.") }
  }()

  private static func text(_ entry: UnsafeMutablePointer<ifaddrs>) -> String? {
    guard let address = entry.pointee.ifa_addr, address.pointee.sa_family == sa_family_t(AF_INET)
    else { return nil }
    var name = [CChar](repeating: 0, count: Int(NI_MAXHOST))
    let result = getnameinfo(
      address, socklen_t(MemoryLayout<sockaddr_in>.size), &name, socklen_t(name.count), nil, 0,
      NI_NUMERICHOST)
    guard result == 0 else { return nil }
    return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

extension Trait where Self == ConditionTrait {
  static var needsOtherAddress: Self {
    .enabled(if: OtherAddress.first != nil, "needs an IPv4 address besides loopback")
  }
}
