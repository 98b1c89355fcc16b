/// A Transfer Request Block: sixteen bytes of any ring (xHCI 1.2, section 4.11.1).
struct TRB: Equatable {
  enum Kind {
    static let normal: UInt8 = 1
    static let setupStage: UInt8 = 2
    static let dataStage: UInt8 = 3
    static let statusStage: UInt8 = 4
    static let isoch: UInt8 = 5
    static let link: UInt8 = 6
    static let eventData: UInt8 = 7
    static let noOp: UInt8 = 8
    static let enableSlot: UInt8 = 9
    static let disableSlot: UInt8 = 10
    static let addressDevice: UInt8 = 11
    static let configureEndpoint: UInt8 = 12
    static let evaluateContext: UInt8 = 13
    static let resetEndpoint: UInt8 = 14
    static let stopEndpoint: UInt8 = 15
    static let setDequeuePointer: UInt8 = 16
    static let resetDevice: UInt8 = 17
    static let noOpCommand: UInt8 = 23
    static let transferEvent: UInt8 = 32
    static let commandCompletion: UInt8 = 33
    static let portStatusChange: UInt8 = 34
    static let hostController: UInt8 = 37
    static let microframeWrap: UInt8 = 39
  }

  /// Bits of the control word.
  enum Flag {
    static let cycle: UInt32 = 1 << 0
    /// Of a Link TRB.
    static let toggleCycle: UInt32 = 1 << 1
    static let interruptOnShortPacket: UInt32 = 1 << 2
    /// Of a Transfer Event: the parameter is an Event Data TRB's.
    static let eventData: UInt32 = 1 << 2
    static let chain: UInt32 = 1 << 4
    static let interruptOnCompletion: UInt32 = 1 << 5
    static let immediateData: UInt32 = 1 << 6
    static let blockEventInterrupt: UInt32 = 1 << 9
    /// Of a Configure Endpoint command.
    static let deconfigure: UInt32 = 1 << 9
    /// Of an Address Device command.
    static let blockSetAddress: UInt32 = 1 << 9
    /// Of Data and Status Stage TRBs: to the host.
    static let directionIn: UInt32 = 1 << 16
  }

  static let size = 16
  /// A Normal TRB's buffer does not exceed it (section 6.4.1.1).
  static let maximumLength: UInt32 = 0x1_0000

  var parameter: UInt64
  var status: UInt32
  var control: UInt32

  init(parameter: UInt64 = 0, status: UInt32 = 0, control: UInt32 = 0) {
    self.parameter = parameter
    self.status = status
    self.control = control
  }

  init(_ bytes: [UInt8]) {
    parameter = LittleEndian.number(bytes, at: 0, UInt64.self)
    status = LittleEndian.number(bytes, at: 8, UInt32.self)
    control = LittleEndian.number(bytes, at: 12, UInt32.self)
  }

  var bytes: [UInt8] {
    LittleEndian.bytes(parameter) + LittleEndian.bytes(status) + LittleEndian.bytes(control)
  }

  var kind: UInt8 { UInt8(truncatingIfNeeded: control >> 10 & 63) }
  var slot: Int { Int(control >> 24) }
  /// The Device Context Index of an endpoint.
  var endpoint: Int { Int(control >> 16 & 31) }
  /// The 17-bit length of a transfer TRB.
  var length: Int { Int(status & 0x1_FFFF) }
  func has(_ flag: UInt32) -> Bool { control & flag != 0 }

  static func control(_ kind: UInt8, slot: Int = 0, endpoint: Int = 0, _ flags: UInt32 = 0)
    -> UInt32
  {
    UInt32(kind) << 10 | UInt32(slot & 0xFF) << 24 | UInt32(endpoint & 31) << 16 | flags
  }
}

/// Completion codes (section 6.4.5).
enum CompletionCode: UInt8 {
  case success = 1
  case transactionError = 4
  case trbError = 5
  case stall = 6
  case noSlotsAvailable = 9
  case slotNotEnabled = 11
  case endpointNotEnabled = 12
  case shortPacket = 13
  case parameterError = 17
  case contextStateError = 19
  case eventRingFull = 21
  case commandRingStopped = 24
  case stopped = 26
  case stoppedLengthInvalid = 27
}

/// Where a consumer is on a command or transfer ring: the place of the next TRB and the
/// cycle bit by which it is known to be new (section 4.9.2).
struct XHCIRing: Codable, Sendable, Equatable {
  var pointer: UInt64
  var cycle: Bool

  /// As pointers with a cycle bit are written: in contexts and commands.
  init(_ word: UInt64) {
    pointer = word & ~15
    cycle = word & 1 != 0
  }

  var word: UInt64 { pointer | (cycle ? 1 : 0) }

  /// Whether `trb`, which was read at `pointer`, is the consumer's.
  func owns(_ trb: TRB) -> Bool { trb.has(TRB.Flag.cycle) == cycle }

  /// Beyond `trb`, which may be a Link TRB.
  mutating func advance(over trb: TRB) {
    guard trb.kind == TRB.Kind.link else {
      pointer = pointer &+ UInt64(TRB.size)
      return
    }
    pointer = trb.parameter & ~15
    if trb.has(TRB.Flag.toggleCycle) { cycle.toggle() }
  }
}

/// What bad memory does to the controller (Host System Error, section 4.10.2.6).
struct HostSystemError: Error {
  let problem: String
}
