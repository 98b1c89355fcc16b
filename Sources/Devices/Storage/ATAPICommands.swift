import DeviceModel

/// The packet commands (MMC-5, section 6).
extension ATAPIDrive {
  private enum Operation {
    static let testUnitReady: UInt8 = 0x00
    static let requestSense: UInt8 = 0x03
    static let inquiry: UInt8 = 0x12
    static let modeSense6: UInt8 = 0x1A
    static let startStopUnit: UInt8 = 0x1B
    static let preventAllowRemoval: UInt8 = 0x1E
    static let readCapacity: UInt8 = 0x25
    static let read10: UInt8 = 0x28
    static let seek: UInt8 = 0x2B
    static let verify: UInt8 = 0x2F
    static let synchronizeCache: UInt8 = 0x35
    static let readTOC: UInt8 = 0x43
    static let getConfiguration: UInt8 = 0x46
    static let getEventStatus: UInt8 = 0x4A
    static let readDiscInformation: UInt8 = 0x51
    static let readTrackInformation: UInt8 = 0x52
    static let modeSense10: UInt8 = 0x5A
    static let read12: UInt8 = 0xA8
    static let readDVDStructure: UInt8 = 0xAD
    static let readCDMSF: UInt8 = 0xB9
    static let setCDSpeed: UInt8 = 0xBB
    static let mechanismStatus: UInt8 = 0xBD
    static let readCD: UInt8 = 0xBE
  }

  /// Commands that are carried out while a unit attention waits to be told.
  private static let despiteAttention: Set<UInt8> = [
    Operation.requestSense, Operation.inquiry, Operation.getConfiguration,
    Operation.getEventStatus,
  ]

  func perform(_ packet: CommandPacket) {
    let operation = packet[0]
    if settings.unitAttention, !Self.despiteAttention.contains(operation) {
      settings.unitAttention = false
      return fail(.mediumChanged)
    }
    switch operation {
    case Operation.testUnitReady, Operation.synchronizeCache:
      if hasMedium() { succeed() }
    case Operation.requestSense: requestSense(packet)
    case Operation.inquiry: inquiry(packet)
    case Operation.modeSense6: modeSense(packet, long: false)
    case Operation.modeSense10: modeSense(packet, long: true)
    case Operation.startStopUnit: startStop(packet)
    case Operation.preventAllowRemoval:
      settings.locked = packet[4] & 1 != 0
      succeed()
    case Operation.readCapacity: readCapacity()
    case Operation.read10: readSectors(first: packet.long(2), count: packet.word(7))
    case Operation.read12: readSectors(first: packet.long(2), count: packet.long(6))
    case Operation.seek, Operation.verify:
      if hasMedium() { packet.long(2) < sectorCount ? succeed() : fail(.outOfRange) }
    case Operation.setCDSpeed: succeed()
    case Operation.readCD: readCD(packet, first: packet.long(2), count: packet.triple(6))
    case Operation.readCDMSF: readCDMSF(packet)
    default: performInformation(packet)
    }
  }

  private func performInformation(_ packet: CommandPacket) {
    switch packet[0] {
    case Operation.readTOC: readTOC(packet)
    case Operation.getConfiguration: getConfiguration(packet)
    case Operation.getEventStatus: getEventStatus(packet)
    case Operation.readDiscInformation:
      if hasMedium() { answer(discInformation, limit: packet.word(7)) }
    case Operation.readTrackInformation: readTrackInformation(packet)
    case Operation.readDVDStructure: readDVDStructure(packet)
    case Operation.mechanismStatus:
      answer([0, settings.trayOpen ? 0x10 : 0, 0, 0, 0, 1, 0, 0], limit: packet.word(8))
    default: fail(.invalidCommand)
    }
  }

  private func hasMedium() -> Bool {
    if medium == nil {
      fail(settings.trayOpen ? Sense(key: 2, code: 0x3A, qualifier: 2) : .noMedium)
    }
    return medium != nil
  }

  // MARK: - Identity and condition

  private func requestSense(_ packet: CommandPacket) {
    var sense = settings.sense
    if sense == .none, settings.unitAttention {
      sense = .mediumChanged
      settings.unitAttention = false
    }
    var data = [UInt8](repeating: 0, count: 18)
    data[0] = 0xF0
    data[2] = sense.key
    data[7] = 10
    data[12] = sense.code
    data[13] = sense.qualifier
    answer(data, limit: Int(packet[4]))
  }

  private func inquiry(_ packet: CommandPacket) {
    // Vital product data pages are not there.
    guard packet[1] & 1 == 0, packet[2] == 0 else { return fail(.invalidField) }
    var data: [UInt8] = [0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0]
    data += Array("CARREL  ".utf8)
    data += Array("CARREL DVD-ROM  ".utf8)
    data += Array("1.0 ".utf8)
    answer(data, limit: packet.word(3))
  }

  private func startStop(_ packet: CommandPacket) {
    // LoEj and Start; a power condition is none of the tray's business.
    guard packet[4] & 0xF0 == 0, packet[4] & 2 != 0 else { return succeed() }
    let opens = packet[4] & 1 == 0
    guard opens != settings.trayOpen else { return succeed() }
    guard !opens || !settings.locked else { return fail(.removalPrevented) }
    settings.trayOpen = opens
    if !opens, backend != nil {
      settings.unitAttention = true
      settings.event = .newMedia
    }
    succeed()
  }

  private func getEventStatus(_ packet: CommandPacket) {
    // Only polling, there is no queue to wait on.
    guard packet[1] & 1 != 0 else { return fail(.invalidField) }
    let supported: UInt8 = 1 << 4
    guard packet[4] & supported != 0 else {
      return answer([0, 2, 0x80, supported], limit: packet.word(7))
    }
    let status: UInt8 = (settings.trayOpen ? 1 : 0) | (medium != nil ? 2 : 0)
    let event = settings.event.rawValue
    settings.event = .none
    answer([0, 6, 4, supported, event, status, 0, 0], limit: packet.word(7))
  }

  // MARK: - Medium

  private func readCapacity() {
    guard hasMedium() else { return }
    answer(
      BigEndian.bytes(UInt32(clamping: max(sectorCount - 1, 0)))
        + BigEndian.bytes(UInt32(Self.sectorSize)), limit: 8)
  }

  private func readCD(_ packet: CommandPacket, first: Int, count: Int) {
    switch packet[9] & 0xF8 {
    // Nothing asked for.
    case 0x00: hasMedium() ? succeed() : ()
    case 0x10: readSectors(first: first, count: count)
    case 0xF8: readSectors(first: first, count: count, raw: true)
    default: fail(.invalidField)
    }
  }

  private func readCDMSF(_ packet: CommandPacket) {
    func sector(_ at: Int) -> Int {
      (Int(packet[at]) * 60 + Int(packet[at + 1])) * 75 + Int(packet[at + 2]) - 150
    }
    guard sector(6) >= sector(3) else { return fail(.invalidField) }
    readCD(packet, first: sector(3), count: sector(6) - sector(3))
  }

  private var isDVD: Bool { sectorCount > 80 * 60 * 75 }

  /// A sector's address in four bytes, as minutes, seconds and frames or a number.
  private func address(_ sector: Int, timed: Bool) -> [UInt8] {
    guard timed else { return BigEndian.bytes(UInt32(clamping: sector)) }
    let (minute, second, frame) = CDSector.minuteSecondFrame(sector)
    return [0, minute, second, frame]
  }

  private func readTOC(_ packet: CommandPacket) {
    guard hasMedium() else { return }
    let timed = packet[1] & 2 != 0
    let format = packet[2] & 0x0F != 0 ? packet[2] & 0x0F : packet[9] >> 6
    let leadOut: UInt8 = 0xAA
    let start = packet[6]
    switch format {
    case 0:
      guard start <= 1 || start == leadOut else { return fail(.invalidField) }
      var body: [UInt8] = [1, 1]
      if start <= 1 { body += [0, 0x14, 1, 0] + address(0, timed: timed) }
      body += [0, 0x14, leadOut, 0] + address(sectorCount, timed: timed)
      answer(BigEndian.bytes(UInt16(body.count)) + body, limit: packet.word(7))
    case 1:
      let body: [UInt8] = [1, 1, 0, 0x14, 1, 0] + address(0, timed: timed)
      answer(BigEndian.bytes(UInt16(body.count)) + body, limit: packet.word(7))
    case 2:
      answer(rawTOC(timed: timed), limit: packet.word(7))
    default: fail(.invalidField)
    }
  }

  /// The Q sub-channel of the lead-in: first and last track, lead-out, track 1.
  private func rawTOC(timed: Bool) -> [UInt8] {
    func entry(_ point: UInt8, _ place: [UInt8]) -> [UInt8] {
      [1, 0x14, 0, point, 0, 0, 0] + place
    }
    let body: [UInt8] =
      [1, 1] + entry(0xA0, [0, 1, 0, 0]) + entry(0xA1, [0, 1, 0, 0])
      + entry(0xA2, address(sectorCount, timed: timed)) + entry(1, address(0, timed: timed))
    return BigEndian.bytes(UInt16(body.count)) + body
  }

  private var discInformation: [UInt8] {
    var data = [UInt8](repeating: 0, count: 34)
    data[1] = 32
    data[2] = 0x0E  // last session complete, disc finalised
    data[3] = 1
    data[4] = 1
    data[5] = 1
    data[6] = 1
    data[7] = 0x20  // unrestricted use
    for index in 16..<24 { data[index] = 0xFF }
    return data
  }

  private func readTrackInformation(_ packet: CommandPacket) {
    guard hasMedium() else { return }
    var data = [UInt8](repeating: 0, count: 36)
    data[1] = 34
    data[2] = 1
    data[3] = 1
    data[5] = 0x04
    data[6] = 0x01
    data.replaceSubrange(24..<28, with: BigEndian.bytes(UInt32(clamping: sectorCount)))
    answer(data, limit: packet.word(7))
  }

  private func readDVDStructure(_ packet: CommandPacket) {
    guard hasMedium() else { return }
    guard isDVD else { return fail(Sense(key: 5, code: 0x30, qualifier: 2)) }
    var data: [UInt8]
    switch packet[7] {
    case 0x00:
      // One layer, 0.74 µm tracks, 120 mm; data from sector 0x30000 to the end.
      data = [0x01, 0x02, 0x01, 0x00, 0x00, 0x03, 0x00, 0x00]
      data += BigEndian.bytes(UInt32(clamping: 0x30000 + sectorCount - 1))
      data += Array(repeating: 0, count: 2052 - 4 - data.count)
    case 0x01: data = [0, 0, 0, 0]  // not protected
    case 0x03: data = Array(repeating: 0, count: 188)
    case 0x04: data = Array(repeating: 0, count: 2048)
    default: return fail(.invalidField)
    }
    answer(BigEndian.bytes(UInt16(data.count + 2)) + [0, 0] + data, limit: packet.word(8))
  }

  // MARK: - Abilities

  private func getConfiguration(_ packet: CommandPacket) {
    let requested = packet[1] & 3
    guard requested < 3 else { return fail(.invalidField) }
    let profile: UInt16 = medium == nil ? 0 : (isDVD ? 0x10 : 0x08)
    func profileEntry(_ number: UInt16) -> [UInt8] {
      BigEndian.bytes(number) + [number == profile ? 1 : 0, 0]
    }
    // Feature, whether it is current, its descriptor.
    let features: [(UInt16, Bool, [UInt8])] = [
      (0x0000, true, [0x03, 8] + profileEntry(0x10) + profileEntry(0x08)),
      // Core: ATAPI.
      (0x0001, true, [0x0B, 8, 0, 0, 0, 2, 1, 0, 0, 0]),
      // Removable medium: tray, can eject and lock.
      (0x0003, true, [0x03, 4, 0x29, 0, 0, 0]),
      (0x0010, medium != nil, [0x00, 8, 0, 0, 0x08, 0, 0, 1, 0, 0]),
      (0x001E, profile == 0x08, [0x08, 4, 0, 0, 0, 0]),
      (0x001F, profile == 0x10, [0x04, 4, 0, 0, 0, 0]),
    ]
    let start = packet.word(2)
    var body: [UInt8] = []
    for (number, isCurrent, descriptor) in features {
      let wanted =
        switch requested {
        case 0: Int(number) >= start
        case 1: Int(number) >= start && isCurrent
        default: Int(number) == start
        }
      guard wanted else { continue }
      let flags = isCurrent ? descriptor[0] | 1 : descriptor[0] & ~1
      body += BigEndian.bytes(number) + [flags] + descriptor.dropFirst()
    }
    let header = BigEndian.bytes(UInt32(body.count + 4)) + [0, 0] + BigEndian.bytes(profile)
    answer(header + body, limit: packet.word(7))
  }

  private func modeSense(_ packet: CommandPacket, long: Bool) {
    let limit = long ? packet.word(7) : Int(packet[4])
    // Changeable, default and saved values: only current and default ones exist.
    let control = packet[2] >> 6
    guard control != 3 else { return fail(Sense(key: 5, code: 0x39)) }
    let pages: [(UInt8, [UInt8])] = [
      (0x01, [0x01, 0x06, 0x00, 0x05, 0, 0, 0, 0]),
      (0x0E, [0x0E, 0x0E, 0x04, 0, 0, 0, 0, 75, 1, 0xFF, 2, 0xFF, 0, 0, 0, 0]),
      (0x2A, capabilities),
    ]
    let code = packet[2] & 0x3F
    var body: [UInt8] = []
    for (number, page) in pages where code == number || code == 0x3F {
      body += control == 1 ? page.prefix(2) + Array(repeating: 0, count: page.count - 2) : page
    }
    guard !body.isEmpty else { return fail(.invalidField) }
    let mediumType: UInt8 = medium != nil ? 0x01 : (settings.trayOpen ? 0x71 : 0x70)
    let header: [UInt8] =
      long
      ? BigEndian.bytes(UInt16(body.count + 6)) + [mediumType, 0, 0, 0, 0, 0]
      : [UInt8(truncatingIfNeeded: body.count + 3), mediumType, 0, 0]
    answer(header + body, limit: limit)
  }

  private var capabilities: [UInt8] {
    [
      0x2A, 0x12,
      0x3B,  // reads CD-R, CD-RW, method 2, DVD-ROM, DVD-R
      0x00,
      0x70,  // mode 2 forms 1 and 2, multisession
      0x00,
      0x29 | (settings.locked ? 0x02 : 0),  // tray, can lock and eject
      0x00, 0x02, 0xC2, 0x00, 0x02, 0x02, 0x00, 0x02, 0xC2, 0, 0, 0, 0,
    ]
  }
}
