import LinuxSystem

/// The name servers of this host that a guest can ask which is kept from the host itself.
package enum NameServers {
  /// What passt reads by itself.
  private static let own = "/etc/resolv.conf"
  /// Whom systemd-resolved asks, which itself listens on the loopback.
  private static let resolved = "/run/systemd/resolve/resolv.conf"
  private static let limit = 64 << 10

  /// Those that passt is to be told of; none where it finds some by itself, or nobody does.
  static func toTell() -> [String] {
    guard outside(contents(of: own)).isEmpty else { return [] }
    return outside(contents(of: resolved))
  }

  private static func contents(of path: String) -> String {
    String(decoding: (try? Files.read(path, limit: limit)) ?? [], as: UTF8.self)
  }

  /// The servers in the text of a resolv.conf(5) that are not on a loopback, nor on a link
  /// of the host's own.
  package static func outside(_ text: String) -> [String] {
    text.split(separator: "\n").compactMap { line in
      let words = line.split { $0 == " " || $0 == "\t" }
      guard words.count >= 2, words[0] == "nameserver" else { return nil }
      let address = String(words[1])
      let isLocal = address.hasPrefix("127.") || address == "::1" || address.contains("%")
      return isLocal ? nil : address
    }
  }
}
