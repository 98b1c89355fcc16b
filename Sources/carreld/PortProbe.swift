import Foundation

/// Whether a TCP address could be listened on.
enum PortProbe {
  /// What the system says against it; `nil` if nothing.
  static func failure(host: String, port: Int) -> String? {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV
    var list: UnsafeMutablePointer<addrinfo>?
    // SAFETY: the strings outlive the call; the list is freed below.
    let code = getaddrinfo(host, String(port), &hints, &list)
    guard code == 0, let first = list?.pointee else {
      return "'\(host)' is no address of this host"
    }
    defer { freeaddrinfo(list) }
    let descriptor = socket(first.ai_family, first.ai_socktype | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return String(cString: strerror(errno)) }
    defer { close(descriptor) }
    var yes: Int32 = 1
    setsockopt(
      descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
    guard bind(descriptor, first.ai_addr, first.ai_addrlen) == 0, listen(descriptor, 1) == 0 else {
      return String(cString: strerror(errno))
    }
    return nil
  }
}
