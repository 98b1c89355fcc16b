/// A device slot (section 4.5.3).
struct XHCISlot: Codable, Sendable {
  /// Slot states, by their number in contexts.
  enum Condition: UInt32, Codable {
    /// Disabled or enabled: the driver has no context yet.
    case enabled = 0
    case `default` = 1
    case addressed = 2
    case configured = 3
  }

  var condition = Condition.enabled
  /// Root hub port number, from 1 on.
  var port = 0
  /// The output context, and what is in its slot context.
  var contextAddress: UInt64 = 0
  var context: [UInt32] = [0, 0, 0, 0]
  /// By Device Context Index, 1 … 31; the first is no endpoint.
  var endpoints: [XHCIEndpoint?] = Array(repeating: nil, count: 32)

  /// The device's address, 0 in the default state.
  var address: UInt8 { UInt8(truncatingIfNeeded: context[3]) }

  var scheduled: [Int] {
    endpoints.indices.filter { endpoints[$0]?.isScheduled == true }
  }

  var isSound: Bool {
    endpoints.count == 32 && context.count == 4 && (0...XHCI.portCount).contains(port)
      && endpoints.allSatisfy { $0?.context.count ?? 5 == 5 }
  }
}

/// An endpoint of a slot that has a context (section 4.8.3).
struct XHCIEndpoint: Codable, Sendable {
  /// Endpoint states, by their number in contexts.
  enum Condition: UInt32, Codable {
    case running = 1
    case halted = 2
    case stopped = 3
    case error = 4
  }

  static let disabled: UInt32 = 0
  /// EP Type of a control endpoint; bit 2 tells IN from OUT for the others.
  static let controlType: UInt32 = 4

  var condition = Condition.running
  /// The context as the driver wrote it.
  var context: [UInt32]
  var ring: XHCIRing
  /// The doorbell rang, and the ring was not found empty since.
  var isScheduled = false
  /// The driver asked for something since the endpoint began or was stopped.
  var isPolled = false
  /// Bytes of the present transfer that were moved.
  var transferred = 0
  /// Of a control endpoint, between the stages.
  var control: XHCIControlTransfer?

  init(_ context: [UInt32]) {
    self.context = context
    ring = XHCIRing(UInt64(context[2]) | UInt64(context[3]) << 32)
  }

  var type: UInt32 { context[1] >> 3 & 7 }
  var isIn: Bool { type & 4 != 0 }
  var packetSize: Int { Int(context[1] >> 16) }

  /// Whether a driver may configure it at this index: the type has its direction, there
  /// are packets, and no streams.
  func fits(_ index: Int) -> Bool {
    let hasDirection = index == 1 ? type == Self.controlType : isIn == (index & 1 == 1)
    let isKnown = index == 1 || type != 0 && type != Self.controlType
    return hasDirection && isKnown && packetSize > 0 && context[0] >> 10 & 31 == 0
  }
}

/// An endpoint of a slot.
struct XHCIPlace: Equatable {
  /// From 1 on.
  var slot: Int
  /// Device Context Index.
  var endpoint: Int
}

extension XHCI {
  private static let contextSize: UInt64 = 32

  func slot(_ number: Int) -> XHCISlot? {
    state.slots.indices.contains(number - 1) ? state.slots[number - 1] : nil
  }

  func endpoint(_ place: XHCIPlace) -> XHCIEndpoint? {
    guard (1...31).contains(place.endpoint) else { return nil }
    return slot(place.slot)?.endpoints[place.endpoint]
  }

  /// Of an endpoint that there is.
  func change(_ place: XHCIPlace, _ change: (inout XHCIEndpoint) -> Void) {
    guard var endpoint = endpoint(place) else { return }
    change(&endpoint)
    state.slots[place.slot - 1]?.endpoints[place.endpoint] = endpoint
  }

  /// The device that a slot speaks to; `nil` when it does not answer at the slot's address.
  func device(of slot: XHCISlot) -> (any USBFunction)? {
    guard state.ports.indices.contains(slot.port - 1) else { return nil }
    let port = state.ports[slot.port - 1]
    guard port.isEnabled, port.deviceAddress == slot.address else { return nil }
    return device(atPort: slot.port)
  }

  // MARK: Input contexts (section 6.2.5)

  /// Drop and add flags.
  func inputFlags(at input: UInt64) throws(HostSystemError) -> (drop: UInt32, add: UInt32) {
    let words = try words(at: input, count: 2, "an input context")
    return (words[0], words[1])
  }

  func inputSlot(at input: UInt64) throws(HostSystemError) -> [UInt32] {
    try words(at: input &+ Self.contextSize, count: 4, "an input context")
  }

  func inputEndpoint(_ index: Int, at input: UInt64) throws(HostSystemError) -> XHCIEndpoint {
    let address = input &+ UInt64(index + 1) * Self.contextSize
    return XHCIEndpoint(try words(at: address, count: 5, "an input context"))
  }

  private func words(at address: UInt64, count: Int, _ what: String) throws(HostSystemError)
    -> [UInt32]
  {
    let bytes = try bytes(at: address, count: count * 4, what)
    return (0..<count).map { LittleEndian.number(bytes, at: $0 * 4, UInt32.self) }
  }

  // MARK: Output contexts

  /// The device context that the driver gave a slot (section 6.1).
  func outputContext(of slot: Int) throws(HostSystemError) -> UInt64 {
    let entry = try bytes(
      at: state.contextArray &+ UInt64(slot) * 8, count: 8, "the device context array")
    return LittleEndian.number(entry, at: 0, UInt64.self) & ~63
  }

  /// Tells the driver a slot's state and address.
  func writeSlotContext(_ number: Int) throws(HostSystemError) {
    guard let slot = slot(number), slot.contextAddress != 0 else { return }
    var words = slot.context
    words[3] = UInt32(slot.address) | slot.condition.rawValue << 27
    try put(words.flatMap { LittleEndian.bytes($0) }, at: slot.contextAddress, "a device context")
  }

  /// Tells the driver an endpoint's state and where it is on its ring.
  func writeEndpointContext(_ place: XHCIPlace) throws(HostSystemError) {
    guard let slot = slot(place.slot), slot.contextAddress != 0 else { return }
    var words: [UInt32] = [0, 0, 0, 0, 0]
    if let endpoint = slot.endpoints[place.endpoint] {
      words = endpoint.context
      words[0] = words[0] & ~7 | endpoint.condition.rawValue
      words[2] = UInt32(truncatingIfNeeded: endpoint.ring.word)
      words[3] = UInt32(truncatingIfNeeded: endpoint.ring.word >> 32)
    }
    try put(
      words.flatMap { LittleEndian.bytes($0) },
      at: slot.contextAddress &+ UInt64(place.endpoint) * Self.contextSize, "a device context")
  }
}
