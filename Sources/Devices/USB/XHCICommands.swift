/// The command ring and its commands (section 4.6).
extension XHCI {
  /// Links one after another beyond these lead nowhere.
  static let mostLinks = 32

  func serveCommands() throws(HostSystemError) {
    var links = 0
    while state.hasCommands, !isEventRingFull, spend() {
      let address = state.commandRing.pointer
      let command = try trb(at: address, "the command ring")
      guard state.commandRing.owns(command) else {
        state.hasCommands = false
        return
      }
      state.commandRing.advance(over: command)
      guard command.kind != TRB.Kind.link else {
        links += 1
        guard links < Self.mostLinks else {
          throw HostSystemError(problem: "the command ring has only links")
        }
        continue
      }
      links = 0
      let (code, slot) = try carryOut(command)
      try post(
        XHCIEvent(TRB.Kind.commandCompletion, parameter: address, code, slot: slot))
    }
  }

  private func carryOut(_ command: TRB) throws(HostSystemError) -> (CompletionCode, slot: Int) {
    switch command.kind {
    case TRB.Kind.enableSlot: return enableSlot(command)
    case TRB.Kind.noOpCommand: return (.success, 0)
    default: break
    }
    let number = command.slot
    guard let slot = slot(number) else { return (.slotNotEnabled, number) }
    let place = XHCIPlace(slot: number, endpoint: command.endpoint)
    let code: CompletionCode =
      switch command.kind {
      case TRB.Kind.disableSlot: try disableSlot(number)
      case TRB.Kind.addressDevice: try addressDevice(slot, command)
      case TRB.Kind.configureEndpoint: try configureEndpoint(slot, command)
      case TRB.Kind.evaluateContext: try evaluateContext(slot, command)
      case TRB.Kind.resetEndpoint: try resetEndpoint(place)
      case TRB.Kind.stopEndpoint: try stopEndpoint(place)
      case TRB.Kind.setDequeuePointer: try setDequeuePointer(place, command)
      case TRB.Kind.resetDevice: try resetDevice(slot, number)
      // Force Event and Force Header among them, and the optional commands.
      default: .trbError
      }
    return (code, number)
  }

  // MARK: Slots

  private func enableSlot(_ command: TRB) -> (CompletionCode, slot: Int) {
    // The slot type, which the supported protocols say is 0.
    guard command.endpoint == 0 else { return (.trbError, 0) }
    let allowed = min(Int(state.configure & 0xFF), Self.maximumSlots)
    guard let free = state.slots.prefix(allowed).firstIndex(where: { $0 == nil }) else {
      return (.noSlotsAvailable, 0)
    }
    state.slots[free] = XHCISlot()
    return (.success, free + 1)
  }

  private func disableSlot(_ number: Int) throws(HostSystemError) -> CompletionCode {
    state.slots[number - 1]?.condition = .enabled
    state.slots[number - 1]?.context[3] = 0
    try writeSlotContext(number)
    state.slots[number - 1] = nil
    return .success
  }

  /// Section 4.6.5. The device learns its address here, not by a request on the bus.
  private func addressDevice(_ slot: XHCISlot, _ command: TRB) throws(HostSystemError)
    -> CompletionCode
  {
    let blocksAddress = command.has(TRB.Flag.blockSetAddress)
    guard slot.condition == .enabled || slot.condition == .default && !blocksAddress else {
      return .contextStateError
    }
    let input = command.parameter & ~15
    let flags = try inputFlags(at: input)
    guard flags.drop == 0, flags.add & 3 == 3 else { return .parameterError }
    let words = try inputSlot(at: input)
    let control = try inputEndpoint(1, at: input)
    let port = Int(words[1] >> 16 & 0xFF)
    // No hubs, so no route.
    guard (1...Self.portCount).contains(port), words[0] & 0xF_FFFF == 0, control.fits(1),
      !isTaken(port, byOtherThan: command.slot)
    else { return .parameterError }
    guard state.ports[port - 1].isEnabled, state.ports[port - 1].deviceAddress == 0 else {
      return .transactionError
    }
    var new = slot
    new.port = port
    new.contextAddress = try outputContext(of: command.slot)
    guard new.contextAddress != 0 else { return .parameterError }
    let address = blocksAddress ? 0 : UInt32(command.slot)
    new.context = [words[0], words[1], words[2], address]
    new.condition = blocksAddress ? .default : .addressed
    new.endpoints[1] = control
    state.slots[command.slot - 1] = new
    state.ports[port - 1].deviceAddress = UInt8(address)
    try writeSlotContext(command.slot)
    try writeEndpointContext(XHCIPlace(slot: command.slot, endpoint: 1))
    return .success
  }

  private func isTaken(_ port: Int, byOtherThan number: Int) -> Bool {
    state.slots.indices.contains { index in
      index != number - 1 && state.slots[index]?.port == port
    }
  }

  /// Section 4.6.11: the device was reset, and is in its default state.
  private func resetDevice(_ slot: XHCISlot, _ number: Int) throws(HostSystemError)
    -> CompletionCode
  {
    guard slot.condition == .addressed || slot.condition == .configured else {
      return .contextStateError
    }
    try disableEndpoints(of: number)
    state.slots[number - 1]?.condition = .default
    state.slots[number - 1]?.context[3] = 0
    setContextEntries(1, of: number)
    try writeSlotContext(number)
    return .success
  }

  /// All but the default control endpoint.
  private func disableEndpoints(of number: Int) throws(HostSystemError) {
    for index in 2...31 where slot(number)?.endpoints[index] != nil {
      state.slots[number - 1]?.endpoints[index] = nil
      try writeEndpointContext(XHCIPlace(slot: number, endpoint: index))
    }
  }

  private func setContextEntries(_ count: UInt32, of number: Int) {
    guard let word = slot(number)?.context[0] else { return }
    state.slots[number - 1]?.context[0] = word & 0x07FF_FFFF | count << 27
  }

  // MARK: Configuration

  /// Section 4.6.6. All of it, or nothing.
  private func configureEndpoint(_ slot: XHCISlot, _ command: TRB) throws(HostSystemError)
    -> CompletionCode
  {
    guard slot.condition == .addressed || slot.condition == .configured else {
      return .contextStateError
    }
    let number = command.slot
    guard !command.has(TRB.Flag.deconfigure) else {
      try disableEndpoints(of: number)
      return try configured(number, entries: 1)
    }
    let input = command.parameter & ~15
    let flags = try inputFlags(at: input)
    guard flags.drop & 3 == 0, flags.add & 3 == 1 else { return .parameterError }
    let entries = try inputSlot(at: input)[0] >> 27
    var added: [Int: XHCIEndpoint] = [:]
    for index in 2...31 where flags.add >> UInt32(index) & 1 != 0 {
      let endpoint = try inputEndpoint(index, at: input)
      guard endpoint.fits(index) else { return .parameterError }
      added[index] = endpoint
    }
    for index in 2...31 where (flags.add | flags.drop) >> UInt32(index) & 1 != 0 {
      state.slots[number - 1]?.endpoints[index] = added[index]
      try writeEndpointContext(XHCIPlace(slot: number, endpoint: index))
    }
    return try configured(number, entries: max(entries, 1))
  }

  private func configured(_ number: Int, entries: UInt32) throws(HostSystemError)
    -> CompletionCode
  {
    let hasEndpoints = slot(number)?.endpoints.dropFirst(2).contains { $0 != nil } == true
    state.slots[number - 1]?.condition = hasEndpoints ? .configured : .addressed
    setContextEntries(entries, of: number)
    try writeSlotContext(number)
    return .success
  }

  /// Section 4.6.7: the exit latency and interrupter of a slot, the packet size of its
  /// default control endpoint.
  private func evaluateContext(_ slot: XHCISlot, _ command: TRB) throws(HostSystemError)
    -> CompletionCode
  {
    guard slot.condition != .enabled else { return .contextStateError }
    let input = command.parameter & ~15
    let flags = try inputFlags(at: input)
    guard flags.drop == 0 else { return .parameterError }
    if flags.add & 1 != 0 {
      let words = try inputSlot(at: input)
      state.slots[command.slot - 1]?.context[1] = slot.context[1] & ~0xFFFF | words[1] & 0xFFFF
      state.slots[command.slot - 1]?.context[2] =
        slot.context[2] & 0x3F_FFFF | words[2] & ~0x3F_FFFF
      try writeSlotContext(command.slot)
    }
    if flags.add & 2 != 0 {
      let place = XHCIPlace(slot: command.slot, endpoint: 1)
      let packetSize = try inputEndpoint(1, at: input).packetSize
      guard packetSize > 0 else { return .parameterError }
      change(place) { $0.context[1] = $0.context[1] & 0xFFFF | UInt32(packetSize) << 16 }
      try writeEndpointContext(place)
    }
    return .success
  }

  // MARK: Endpoints

  /// Section 4.6.8.
  private func resetEndpoint(_ place: XHCIPlace) throws(HostSystemError) -> CompletionCode {
    guard let endpoint = endpoint(place) else { return .endpointNotEnabled }
    guard endpoint.condition == .halted else { return .contextStateError }
    change(place) {
      $0.condition = .stopped
      $0.control = nil
    }
    try writeEndpointContext(place)
    return .success
  }

  /// Section 4.6.9. A transfer that waits is told of first.
  private func stopEndpoint(_ place: XHCIPlace) throws(HostSystemError) -> CompletionCode {
    guard let endpoint = endpoint(place) else { return .endpointNotEnabled }
    guard endpoint.condition == .running else { return .contextStateError }
    change(place) {
      $0.condition = .stopped
      $0.isScheduled = false
      $0.isPolled = false
    }
    try writeEndpointContext(place)
    if endpoint.isScheduled { try reportStopped(place) }
    return .success
  }

  /// Section 4.6.10.
  private func setDequeuePointer(_ place: XHCIPlace, _ command: TRB) throws(HostSystemError)
    -> CompletionCode
  {
    guard let endpoint = endpoint(place) else { return .endpointNotEnabled }
    guard endpoint.condition == .stopped || endpoint.condition == .error else {
      return .contextStateError
    }
    // Neither streams nor a stream context type.
    guard command.status >> 16 == 0, command.parameter & 14 == 0 else { return .trbError }
    change(place) {
      $0.condition = .stopped
      $0.ring = XHCIRing(command.parameter)
      $0.transferred = 0
    }
    try writeEndpointContext(place)
    return .success
  }
}
