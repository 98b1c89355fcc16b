/// A control transfer between its stages (section 4.11.2.2).
struct XHCIControlTransfer: Codable, Sendable {
  var setup: USBSetup
  /// What the device sends and the driver did not take yet; `nil` until it was asked.
  var response: [UInt8]?
  /// What the driver sent.
  var received: [UInt8] = []
}

/// Transfer rings: control and interrupt endpoints.
extension XHCI {
  /// Why a descriptor ends in an error, and at which byte of it.
  private struct Failure: Error {
    var code: CompletionCode
    var offset = 0
  }

  /// An endpoint's doorbell rang.
  func schedule(_ place: XHCIPlace) throws(HostSystemError) {
    guard let endpoint = endpoint(place),
      endpoint.condition == .running || endpoint.condition == .stopped
    else { return }
    change(place) {
      $0.condition = .running
      $0.isScheduled = true
      $0.isPolled = true
    }
    if endpoint.condition == .stopped { try writeEndpointContext(place) }
  }

  /// Carries out what is on the ring, up to what the device has no answer for yet.
  func serveEndpoint(_ place: XHCIPlace) throws(HostSystemError) {
    while let slot = slot(place.slot), let endpoint = endpoint(place), endpoint.isScheduled,
      endpoint.condition == .running, !isEventRingFull, !isSuspended(slot)
    {
      switch try descriptor(of: endpoint) {
      case .nothing(let ring):
        change(place) {
          $0.isScheduled = false
          $0.ring = ring
        }
        return
      case .incomplete: return
      case .endless(let piece): return try halt(place, .trbError, piece, left: 0)
      case .whole(let descriptor):
        guard try carryOut(descriptor, at: place, slot) else { return }
      }
    }
  }

  private func isSuspended(_ slot: XHCISlot) -> Bool {
    guard state.ports.indices.contains(slot.port - 1) else { return false }
    let port = state.ports[slot.port - 1]
    return port.isEnabled && port.link != .u0
  }

  /// - Returns: whether the endpoint goes on with the next descriptor.
  private func carryOut(
    _ descriptor: XHCITransferDescriptor, at place: XHCIPlace, _ slot: XHCISlot
  ) throws(HostSystemError) -> Bool {
    let outcome: Result<Int?, Failure> = try move(descriptor, place, slot)
    switch outcome {
    case .success(nil): return false
    case .success(let moved?):
      change(place) {
        $0.ring = descriptor.end
        $0.transferred = 0
      }
      try complete(descriptor, at: place, moved: moved)
      return true
    case .failure(let failure):
      guard let (piece, left) = descriptor.piece(at: failure.offset) else { return false }
      try halt(place, failure.code, piece, left: left)
      return false
    }
  }

  /// Moves a descriptor's data.
  ///
  /// - Returns: how many bytes were moved; `nil` when the device has no answer yet.
  private func move(
    _ descriptor: XHCITransferDescriptor, _ place: XHCIPlace, _ slot: XHCISlot
  ) throws(HostSystemError) -> Result<Int?, Failure> {
    guard let first = descriptor.pieces.first?.trb, let endpoint = endpoint(place),
      Self.isSound(descriptor)
    else { return .failure(Failure(code: .trbError)) }
    let isControl = endpoint.type == XHCIEndpoint.controlType
    switch first.kind {
    case TRB.Kind.noOp, TRB.Kind.eventData: return .success(0)
    case TRB.Kind.setupStage where isControl:
      guard first.has(TRB.Flag.immediateData), first.length == 8 else {
        return .failure(Failure(code: .trbError))
      }
      change(place) { $0.control = XHCIControlTransfer(setup: USBSetup(first.parameter)) }
      return .success(0)
    case TRB.Kind.dataStage where isControl:
      return try moveControlData(descriptor, place, slot)
    case TRB.Kind.statusStage where isControl: return finishControl(place, slot)
    case TRB.Kind.normal where !isControl && endpoint.isIn:
      return try moveIn(descriptor, place, endpoint, slot)
    // No device here has an endpoint to which data goes.
    case TRB.Kind.normal where !isControl: return .failure(Failure(code: .transactionError))
    default: return .failure(Failure(code: .trbError))
    }
  }

  /// Chained TRBs are data and events, of lengths that there are.
  private static func isSound(_ descriptor: XHCITransferDescriptor) -> Bool {
    descriptor.pieces.allSatisfy { $0.count <= Int(TRB.maximumLength) }
      && descriptor.pieces.dropFirst().allSatisfy {
        [TRB.Kind.normal, TRB.Kind.eventData, TRB.Kind.noOp].contains($0.trb.kind)
      }
      && descriptor.pieces.allSatisfy {
        $0.count <= 8 || !$0.trb.has(TRB.Flag.immediateData)
      }
  }

  // MARK: Control endpoints

  private func moveControlData(
    _ descriptor: XHCITransferDescriptor, _ place: XHCIPlace, _ slot: XHCISlot
  ) throws(HostSystemError) -> Result<Int?, Failure> {
    guard var control = endpoint(place)?.control, let device = device(of: slot),
      let first = descriptor.pieces.first, control.setup.length > 0,
      first.trb.has(TRB.Flag.directionIn) == control.setup.isIn
    else { return .failure(Failure(code: .transactionError)) }
    guard control.setup.isIn else {
      let limit = Int(control.setup.length) - control.received.count
      control.received += try gather(descriptor, limit: limit)
      change(place) { $0.control = control }
      return .success(descriptor.count)
    }
    guard
      let response = control.response
        ?? device.control(control.setup, data: []).map({
          Array($0.prefix(Int(control.setup.length)))
        })
    else { return .failure(Failure(code: .stall)) }
    guard !descriptor.pieces.contains(where: { $0.trb.has(TRB.Flag.immediateData) }) else {
      return .failure(Failure(code: .trbError))
    }
    let part = Array(response.prefix(descriptor.count))
    try scatter(part, into: descriptor, at: 0)
    control.response = Array(response.dropFirst(part.count))
    change(place) { $0.control = control }
    return .success(part.count)
  }

  /// The Status Stage: a request that sends nothing is carried out here.
  private func finishControl(_ place: XHCIPlace, _ slot: XHCISlot) -> Result<Int?, Failure> {
    guard let control = endpoint(place)?.control, let device = device(of: slot) else {
      return .failure(Failure(code: .transactionError))
    }
    if control.response == nil {
      guard device.control(control.setup, data: control.received) != nil else {
        return .failure(Failure(code: .stall))
      }
    }
    change(place) { $0.control = nil }
    return .success(0)
  }

  // MARK: Interrupt endpoints

  /// Asks the device for packets until one is short or the buffers are full.
  private func moveIn(
    _ descriptor: XHCITransferDescriptor, _ place: XHCIPlace, _ endpoint: XHCIEndpoint,
    _ slot: XHCISlot
  ) throws(HostSystemError) -> Result<Int?, Failure> {
    let count = descriptor.count
    var moved = endpoint.transferred
    while moved < count {
      guard !descriptor.pieces.contains(where: { $0.trb.has(TRB.Flag.immediateData) }) else {
        return .failure(Failure(code: .trbError))
      }
      switch device(of: slot)?.takePacket(endpoint: place.endpoint / 2) {
      case nil: return .failure(Failure(code: .transactionError, offset: moved))
      case .stall: return .failure(Failure(code: .stall, offset: moved))
      case .nothing:
        change(place) { $0.transferred = moved }
        return .success(nil)
      case .data(let packet):
        let part = Array(packet.prefix(count - moved))
        try scatter(part, into: descriptor, at: moved)
        moved += part.count
        if packet.count < endpoint.packetSize { return .success(moved) }
      }
    }
    return .success(moved)
  }

  // MARK: Events (section 4.11.3)

  /// Tells the driver of a descriptor that was carried out, where it wants to know.
  private func complete(
    _ descriptor: XHCITransferDescriptor, at place: XHCIPlace, moved: Int
  ) throws(HostSystemError) {
    var left = moved
    var accumulated = 0
    var isShort = false
    var saidShort = false
    for piece in descriptor.pieces {
      let trb = piece.trb
      let wantsEvent = trb.has(TRB.Flag.interruptOnCompletion)
      if trb.kind == TRB.Kind.eventData {
        if wantsEvent {
          try post(
            transferEvent(
              place, trb, isShort ? .shortPacket : .success, parameter: trb.parameter,
              length: accumulated, flags: TRB.Flag.eventData))
        }
        accumulated = 0
        continue
      }
      let count = min(piece.count, left)
      left -= count
      accumulated += count
      isShort = isShort || count < piece.count
      let tells = wantsEvent || isShort && trb.has(TRB.Flag.interruptOnShortPacket)
      // What comes after a short packet has nothing to add to it.
      guard tells, !saidShort else { continue }
      saidShort = isShort
      try post(
        transferEvent(
          place, trb, isShort ? .shortPacket : .success, parameter: piece.address,
          length: piece.count - count))
    }
  }

  private func transferEvent(
    _ place: XHCIPlace, _ trb: TRB, _ code: CompletionCode, parameter: UInt64, length: Int,
    flags: UInt32 = 0
  ) -> XHCIEvent {
    var event = XHCIEvent(
      TRB.Kind.transferEvent, parameter: parameter, code, length: length, slot: place.slot,
      endpoint: place.endpoint, flags: flags)
    event.isSilent =
      trb.has(TRB.Flag.blockEventInterrupt)
      && (trb.kind == TRB.Kind.normal || trb.kind == TRB.Kind.eventData)
    return event
  }

  /// An error stops the endpoint at the descriptor (section 4.8.3).
  private func halt(
    _ place: XHCIPlace, _ code: CompletionCode, _ piece: XHCITransferDescriptor.Piece, left: Int
  ) throws(HostSystemError) {
    change(place) {
      $0.condition = code == .trbError ? .error : .halted
      $0.isScheduled = false
      $0.transferred = 0
      $0.control = nil
    }
    try writeEndpointContext(place)
    try post(
      XHCIEvent(
        TRB.Kind.transferEvent, parameter: piece.address, code, length: left, slot: place.slot,
        endpoint: place.endpoint))
  }

  /// A Stop Endpoint command met a descriptor that waits for the device.
  func reportStopped(_ place: XHCIPlace) throws(HostSystemError) {
    guard let endpoint = endpoint(place) else { return }
    var event = XHCIEvent(
      TRB.Kind.transferEvent, parameter: endpoint.ring.pointer, .stoppedLengthInvalid,
      slot: place.slot, endpoint: place.endpoint)
    switch try descriptor(of: endpoint) {
    case .nothing: return
    case .incomplete, .endless: break
    case .whole(let descriptor):
      guard let (piece, left) = descriptor.piece(at: endpoint.transferred), piece.count > 0 else {
        break
      }
      event = XHCIEvent(
        TRB.Kind.transferEvent, parameter: piece.address, .stopped, length: left,
        slot: place.slot, endpoint: place.endpoint)
    }
    try post(event)
  }
}
