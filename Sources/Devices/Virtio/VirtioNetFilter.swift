import DeviceModel

/// Which frames a network card hands to its driver (VIRTIO 1.2, section 5.1.6.5.1 to 3).
struct VirtioNetFilter: Codable, Sendable {
  /// Addresses in a table beyond which everything of its kind is taken.
  private static let mostAddresses = 64
  /// A command with two tables of 256 addresses; longer ones are refused.
  static let longestTable = 2 + 2 * (4 + 256 * 6)
  private static let vlans = 4096

  var address: [UInt8]
  private var isPromiscuous = true
  private var takesAllMulticast = false
  private var takesAllUnicast = false
  private var refusesMulticast = false
  private var refusesUnicast = false
  private var refusesBroadcast = false
  private var unicast: [[UInt8]] = []
  private var multicast: [[UInt8]] = []
  private var unicastOverflowed = false
  private var multicastOverflowed = false
  private var vlans: Set<Int> = []

  init(address: [UInt8]) { self.address = address }

  func accepts(_ frame: [UInt8], filtersVLANs: Bool) -> Bool {
    if filtersVLANs, let vlan = EthernetFrame.vlan(of: frame), !vlans.contains(vlan) {
      return false
    }
    if isPromiscuous { return true }
    let target = frame[..<6]
    if target.allSatisfy({ $0 == 0xFF }) { return !refusesBroadcast }
    if frame[0] & 1 != 0 {
      guard !refusesMulticast else { return false }
      return takesAllMulticast || multicastOverflowed || multicast.contains { $0[...] == target }
    }
    guard !refusesUnicast else { return false }
    return takesAllUnicast || unicastOverflowed || address[...] == target
      || unicast.contains { $0[...] == target }
  }

  /// A receive mode, by its command.
  mutating func set(_ mode: UInt8, _ data: [UInt8]) -> Bool {
    guard data.count == 1 else { return false }
    let isOn = data[0] != 0
    switch mode {
    case 0: isPromiscuous = isOn
    case 1: takesAllMulticast = isOn
    case 2: takesAllUnicast = isOn
    case 3: refusesMulticast = isOn
    case 4: refusesUnicast = isOn
    case 5: refusesBroadcast = isOn
    default: return false
    }
    return true
  }

  /// Two tables, each a count of 32 bits and that many addresses: unicast, multicast.
  mutating func setTable(_ data: [UInt8]) -> Bool {
    var rest = data[...]
    var tables: [(addresses: [[UInt8]], overflowed: Bool)] = []
    for _ in 0..<2 {
      guard rest.count >= 4 else { return false }
      let count = rest.prefix(4).reversed().reduce(0) { $0 << 8 | Int($1) }
      rest = rest.dropFirst(4)
      guard count <= rest.count / 6 else { return false }
      let overflowed = count > Self.mostAddresses
      tables.append(
        (
          overflowed ? [] : (0..<count).map { Array(rest.dropFirst($0 * 6).prefix(6)) }, overflowed
        ))
      rest = rest.dropFirst(count * 6)
    }
    (unicast, unicastOverflowed) = tables[0]
    (multicast, multicastOverflowed) = tables[1]
    return true
  }

  mutating func setVLAN(_ operation: UInt8, _ data: [UInt8]) -> Bool {
    guard data.count == 2 else { return false }
    let vlan = Int(data[0]) | Int(data[1]) << 8
    guard vlan < Self.vlans else { return false }
    switch operation {
    case 0: vlans.insert(vlan)
    case 1: vlans.remove(vlan)
    default: return false
    }
    return true
  }
}
