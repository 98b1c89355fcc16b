/// How fast a drive may be, by the names of QMP's arguments. 0 is no limit.
package struct QMPLimits: Hashable, Sendable {
  package enum Quantity: String, Hashable, Sendable, CaseIterable {
    case bytes = "bps"
    case bytesRead = "bps_rd"
    case bytesWritten = "bps_wr"
    case operations = "iops"
    case reads = "iops_rd"
    case writes = "iops_wr"
  }

  package struct Rate: Hashable, Sendable {
    /// A second.
    package var value: UInt64 = 0
    /// A second, in bursts.
    package var most: UInt64 = 0
    /// Seconds of a burst.
    package var length: UInt64 = 1

    package init(value: UInt64 = 0, most: UInt64 = 0, length: UInt64 = 1) {
      self.value = value
      self.most = most
      self.length = length
    }
  }

  package var rates: [Quantity: Rate] = [:]
  /// Bytes of one operation; of any size when it is 0.
  package var operationSize: UInt64 = 0

  package init() {}

  /// Takes what `block_set_io_throttle` was given. What it leaves out is not kept from before,
  /// as in QEMU.
  init(_ arguments: inout QMPArguments) throws(QMPError) {
    for quantity in Quantity.allCases {
      let name = quantity.rawValue
      var rate = Rate(value: try arguments.count(name))
      rate.most = try arguments.optionalCount("\(name)_max") ?? 0
      rate.length = try arguments.optionalCount("\(name)_max_length") ?? 1
      if rate != Rate() { rates[quantity] = rate }
    }
    operationSize = try arguments.optionalCount("iops_size") ?? 0
  }

  /// Members of QMP type `BlockDeviceInfo`: bursts only where there are some.
  var members: [String: JSON] {
    var members: [String: JSON] = [:]
    for quantity in Quantity.allCases {
      let (name, rate) = (quantity.rawValue, rates[quantity] ?? Rate())
      members[name] = .integer(Int64(clamping: rate.value))
      guard rate.most > 0 else { continue }
      members["\(name)_max"] = .integer(Int64(clamping: rate.most))
      members["\(name)_max_length"] = .integer(Int64(clamping: rate.length))
    }
    if operationSize > 0 { members["iops_size"] = .integer(Int64(clamping: operationSize)) }
    return members
  }
}

extension QMPArguments {
  fileprivate mutating func count(_ name: String) throws(QMPError) -> UInt64 {
    try Self.count(integer(name), name)
  }

  fileprivate mutating func optionalCount(_ name: String) throws(QMPError) -> UInt64? {
    guard let number = try optionalInteger(name) else { return nil }
    return try Self.count(number, name)
  }

  private static func count(_ number: Int, _ name: String) throws(QMPError) -> UInt64 {
    if let count = UInt64(exactly: number) { return count }
    throw QMPError(.generic, "Parameter '\(name)' expects no negative number")
  }
}

extension QMPCommands {
  @Sendable static func limit(
    arguments: inout QMPArguments, _: inout QMPInputTranslator, machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    let drive = try drive(&arguments, machine)
    let limits = try QMPLimits(&arguments)
    if try arguments.optionalString("group") != nil {
      throw QMPError(.generic, "Parameter 'group' cannot be given: each drive has its own limits")
    }
    try arguments.end()
    guard !drive.isRemovable else {
      throw QMPError(.generic, "Device '\(drive.name)' cannot be limited: only disks can")
    }
    try machine.limit(drive.name, to: limits)
    return [:]
  }
}
