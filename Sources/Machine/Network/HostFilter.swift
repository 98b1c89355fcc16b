/// Which frames of a guest may go to passt, when the guest is to reach the network but not
/// this host. passt opens the connection that a frame asks for whatever its address, also
/// to services that listen for this host alone.
package struct HostFilter: Sendable {
  /// Addresses of this host's interfaces, each in 4 or 16 bytes.
  package var own: Set<[UInt8]>

  package init(own: Set<[UInt8]>) { self.own = own }

  /// Whether the frame (IEEE 802.3, without a VLAN's tag, which passt does not know) is for
  /// the network, or for passt itself.
  package func admits(_ frame: [UInt8]) -> Bool {
    guard frame.count >= 14 else { return false }
    switch (frame[12], frame[13]) {
    case (0x08, 0x06): return true
    case (0x08, 0x00): return frame.count >= 34 && isElsewhere(Array(frame[30..<34]))
    case (0x86, 0xDD): return frame.count >= 54 && isElsewhere(Array(frame[38..<54]))
    default: return false
    }
  }

  private func isElsewhere(_ address: [UInt8]) -> Bool {
    !own.contains(address) && !Self.meansAnyHostItself(address)
  }

  /// Loopback (RFC 6890; RFC 4291 section 2.5.3), no address at all, which Linux takes for
  /// loopback too, and IPv4 in the clothes of IPv6 (RFC 4291 section 2.5.5).
  private static func meansAnyHostItself(_ address: [UInt8]) -> Bool {
    if address.count == 4 { return address[0] == 127 || address[0] == 0 }
    let marks = Array(address[10..<12])
    return address[..<10].allSatisfy { $0 == 0 } && (marks == [0, 0] || marks == [0xFF, 0xFF])
  }
}
