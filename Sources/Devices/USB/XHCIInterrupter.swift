/// The interrupter: its registers, and where the producer is on the event ring (sections
/// 4.9.4 and 5.5.2).
struct XHCIInterrupter: Codable, Sendable {
  /// A segment of the event ring.
  struct Segment: Codable, Sendable, Equatable {
    var base: UInt64
    var count: Int
  }

  static let pending: UInt32 = 1
  static let enable: UInt32 = 2
  static let handlerBusy: UInt64 = 1 << 3
  /// 2^ERSTMax.
  static let maximumSegments = 8
  static let segmentEntry = 16
  /// Beyond these, events that no ring's work is behind are lost.
  static let mostWaiting = 64

  /// IMAN.
  var management: UInt32 = 0
  /// IMOD: accepted, and no interrupt is held back.
  var moderation: UInt32 = 4000
  var tableSize: UInt32 = 0
  var tableAddress: UInt64 = 0
  /// ERDP, with its flags.
  var dequeue: UInt64 = 0

  /// As the table said when it was read; empty until the first event.
  var segments: [Segment] = []
  var segment = 0
  var index = 0
  var cycle = true
  /// An event that may interrupt was written since the last interrupt.
  var owesInterrupt = false
  /// Events that had no room, and that the ring says so already.
  var waiting: [XHCIEvent] = []
  var saidFull = false

  var isPending: Bool { management & Self.pending != 0 }
  var isEnabled: Bool { management & Self.enable != 0 }
  var isHandlerBusy: Bool { dequeue & Self.handlerBusy != 0 }
  var dequeuePointer: UInt64 { dequeue & ~15 }

  var isSound: Bool {
    segments.isEmpty
      || segments.indices.contains(segment) && (0..<segments[segment].count).contains(index)
        && segments.allSatisfy { $0.count > 0 }
  }

  func address(_ place: (segment: Int, index: Int)) -> UInt64 {
    segments[place.segment].base &+ UInt64(place.index * TRB.size)
  }

  var place: (segment: Int, index: Int) { (segment, index) }
  var enqueuePointer: UInt64? { segments.isEmpty ? nil : address(place) }

  func next(_ place: (segment: Int, index: Int)) -> (segment: Int, index: Int) {
    if place.index + 1 < segments[place.segment].count { return (place.segment, place.index + 1) }
    return ((place.segment + 1) % segments.count, 0)
  }

  /// The base of the table was written: the ring begins anew.
  mutating func restart() {
    segments = []
    (segment, index, cycle) = (0, 0, true)
    owesInterrupt = false
    saidFull = false
  }
}

/// An event that is to be written, without its cycle bit.
struct XHCIEvent: Codable, Sendable, Equatable {
  var parameter: UInt64
  var status: UInt32
  var control: UInt32
  /// BEI.
  var isSilent = false

  init(
    _ kind: UInt8, parameter: UInt64 = 0, _ code: CompletionCode, length: Int = 0, slot: Int = 0,
    endpoint: Int = 0, flags: UInt32 = 0
  ) {
    self.parameter = parameter
    status = UInt32(code.rawValue) << 24 | UInt32(length & 0xFF_FFFF)
    control = TRB.control(kind, slot: slot, endpoint: endpoint, flags)
  }
}

extension XHCI {
  /// Events wait for room, so commands and transfers do.
  var isEventRingFull: Bool { !state.interrupter.waiting.isEmpty }

  /// Writes an event, or keeps it until there is room.
  func post(_ event: XHCIEvent) throws(HostSystemError) {
    state.interrupter.waiting.append(event)
    try flushEvents()
  }

  /// Writes what there is room for. The last place says that the ring is full.
  func flushEvents() throws(HostSystemError) {
    guard !state.interrupter.waiting.isEmpty, function.isBusMaster else { return }
    try readSegments()
    while let event = state.interrupter.waiting.first {
      let interrupter = state.interrupter
      let next = interrupter.next(interrupter.place)
      guard interrupter.address(next) != interrupter.dequeuePointer else { return }
      guard interrupter.address(interrupter.next(next)) != interrupter.dequeuePointer else {
        guard !interrupter.saidFull else { return }
        state.interrupter.saidFull = true
        return try write(XHCIEvent(TRB.Kind.hostController, .eventRingFull))
      }
      state.interrupter.saidFull = false
      state.interrupter.waiting.removeFirst()
      try write(event)
    }
  }

  private func write(_ event: XHCIEvent) throws(HostSystemError) {
    let interrupter = state.interrupter
    let next = interrupter.next(interrupter.place)
    let trb = TRB(
      parameter: event.parameter, status: event.status,
      control: event.control | (interrupter.cycle ? TRB.Flag.cycle : 0))
    try put(trb.bytes, at: interrupter.address(interrupter.place), "the event ring")
    (state.interrupter.segment, state.interrupter.index) = next
    if next == (0, 0) { state.interrupter.cycle.toggle() }
    guard !event.isSilent else { return }
    state.interrupter.owesInterrupt = true
    raiseInterrupt()
  }

  /// Makes an interrupt pending unless the driver is at its events (section 4.17.2).
  private func raiseInterrupt() {
    guard state.interrupter.owesInterrupt, !state.interrupter.isHandlerBusy else { return }
    state.interrupter.owesInterrupt = false
    state.interrupter.dequeue |= XHCIInterrupter.handlerBusy
    state.interrupter.management |= XHCIInterrupter.pending
    state.status |= Status.eventInterrupt
    updateInterrupt()
  }

  /// The event ring segment table (section 6.5).
  private func readSegments() throws(HostSystemError) {
    guard state.interrupter.segments.isEmpty else { return }
    let count = Int(state.interrupter.tableSize)
    guard (1...XHCIInterrupter.maximumSegments).contains(count) else {
      throw HostSystemError(problem: "the event ring has \(count) segments")
    }
    let table = try bytes(
      at: state.interrupter.tableAddress, count: count * XHCIInterrupter.segmentEntry,
      "the event ring segment table")
    var segments: [XHCIInterrupter.Segment] = []
    for place in stride(from: 0, to: table.count, by: XHCIInterrupter.segmentEntry) {
      let base = LittleEndian.number(table, at: place, UInt64.self) & ~63
      let size = Int(LittleEndian.number(table, at: place + 8, UInt16.self))
      guard (16...4096).contains(size) else {
        throw HostSystemError(problem: "a segment of the event ring has \(size) entries")
      }
      segments.append(XHCIInterrupter.Segment(base: base, count: size))
    }
    state.interrupter.segments = segments
  }

  /// ERDP was written: the driver took events, and may be done with them.
  func eventsWereTaken(clearsBusy: Bool) {
    let isEmpty = state.interrupter.enqueuePointer == state.interrupter.dequeuePointer
    if clearsBusy {
      state.interrupter.dequeue &= ~XHCIInterrupter.handlerBusy
      // What it left interrupts anew.
      state.interrupter.owesInterrupt =
        !isEmpty && !state.interrupter.segments.isEmpty
      raiseInterrupt()
    }
    serve()
  }
}
