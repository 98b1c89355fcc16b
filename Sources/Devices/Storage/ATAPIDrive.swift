import DeviceModel

/// An ATAPI CD/DVD-ROM drive over an image of 2048-byte sectors.
///
/// Packet commands as in MMC-5; QEMU's drives answer alike. An image larger than
/// a CD is a DVD.
package final class ATAPIDrive: IDEDrive {
  private enum Command {
    static let nop: UInt8 = 0x00
    static let packet: UInt8 = 0xA0
    static let identifyPacket: UInt8 = 0xA1
    static let identify: UInt8 = 0xEC
    static let readSectors: UInt8 = 0x20
    static let setFeatures: UInt8 = 0xEF
    static let flushCache: UInt8 = 0xE7
    static let checkPower: UInt8 = 0xE5
    static let powerModes: ClosedRange<UInt8> = 0xE0...0xE3
    static let sleep: UInt8 = 0xE6
  }

  /// Why a packet command failed (SPC-4, 4.5).
  package struct Sense: Codable, Sendable, Equatable {
    var key: UInt8
    var code: UInt8
    var qualifier: UInt8 = 0

    static let none = Sense(key: 0, code: 0)
    static let noMedium = Sense(key: 2, code: 0x3A)
    static let unreadable = Sense(key: 3, code: 0x11)
    static let invalidCommand = Sense(key: 5, code: 0x20)
    static let outOfRange = Sense(key: 5, code: 0x21)
    static let invalidField = Sense(key: 5, code: 0x24)
    static let removalPrevented = Sense(key: 5, code: 0x53, qualifier: 2)
    static let mediumChanged = Sense(key: 6, code: 0x28)
  }

  /// What GET EVENT STATUS NOTIFICATION reports once.
  package enum MediaEvent: UInt8, Codable, Sendable {
    case none = 0
    case ejectRequest = 1
    case newMedia = 2
    case mediaRemoval = 3
  }

  package struct Settings: Codable, Sendable {
    var version = 1
    var sense = Sense.none
    var unitAttention = false
    var event = MediaEvent.none
    var trayOpen = false
    var locked = false
    var packetUsesDMA = false
    var transferMode: UInt8 = 0x45
  }

  static let packetSize = 12
  static let sectorSize = 2048

  var settings: Settings {
    didSet { if settings.trayOpen != oldValue.trayOpen { onTrayMove?() } }
  }
  /// Called under the device lock when the tray was opened or closed, whoever did it.
  package var onTrayMove: (() -> Void)?

  init(medium: (any BlockBackend)?, state: State?) {
    settings = state?.cdrom ?? Settings()
    super.init(backend: medium, state: state)
    if state == nil { hardReset() }
  }

  override func saveState() -> State {
    var state = super.saveState()
    state.cdrom = settings
    return state
  }

  override var isPacketDevice: Bool { true }

  /// Puts a medium in, or takes it out, as a person would.
  package func setMedium(_ medium: (any BlockBackend)?) {
    exchange(medium, trayOpen: false)
  }

  private func exchange(_ medium: (any BlockBackend)?, trayOpen: Bool) {
    if taskFile.status.contains(.busy), transfer != nil { fail(.noMedium) }
    setBackend(medium)
    settings.trayOpen = trayOpen
    settings.unitAttention = medium != nil
    settings.event = medium == nil ? .mediaRemoval : .newMedia
  }

  /// Opens the tray and takes the medium out, as a person would, though not if software
  /// locked it: then only the wish is told.
  ///
  /// - Parameter force: as with a paper clip, whether it is locked or not.
  /// - Returns: whether the tray is open.
  @discardableResult
  package func eject(force: Bool = false) -> Bool {
    guard force || !settings.locked || settings.trayOpen else {
      settings.event = .ejectRequest
      return false
    }
    exchange(nil, trayOpen: true)
    return true
  }

  package var isTrayOpen: Bool { settings.trayOpen }

  /// Whether software locked the tray.
  package var isLocked: Bool { settings.locked }

  /// The medium that can be read.
  var medium: (any BlockBackend)? { settings.trayOpen ? nil : backend }

  var sectorCount: Int {
    Int(clamping: min((medium?.byteCount ?? 0) / UInt64(Self.sectorSize), UInt64(UInt32.max)))
  }

  override func softReset() {
    settings.sense = .none
    super.softReset()
  }

  override func hardReset() {
    settings.locked = false
    settings.transferMode = 0x45
    super.hardReset()
  }

  // MARK: - ATA commands

  override func execute(_ command: UInt8) {
    switch command {
    case Command.packet:
      settings.packetUsesDMA = taskFile.features.current & 1 != 0
      begin(Transfer(direction: .toDevice, usesDMA: false, blockLimit: Self.packetSize))
    case Command.identifyPacket:
      reply(identification)
    case Command.identify, Command.readSectors:
      taskFile.setSignature(isPacketDevice: true)
      abort()
    case Command.setFeatures where taskFile.features.current == 3:
      settings.transferMode = taskFile.sectorCount.current
      complete()
    case Command.checkPower:
      taskFile.sectorCount.current = 0xFF
      complete()
    case Command.powerModes, Command.sleep, Command.flushCache:
      complete()
    default:
      abort()
    }
  }

  // MARK: - Phases of a packet command

  /// Interrupt reason, in the sector count register.
  private enum Reason {
    static let commandToDrive: UInt8 = 1
    static let dataToHost: UInt8 = 2
    static let status: UInt8 = 3
  }

  override func offered(_ count: Int) {
    if transfer?.direction == .toDevice {
      taskFile.sectorCount.current = Reason.commandToDrive
    } else {
      taskFile.sectorCount.current = Reason.dataToHost
      taskFile.byteCount = count
    }
  }

  override func received(_ packet: [UInt8]) {
    perform(CommandPacket(packet))
  }

  override func transferEnded(_ ended: Transfer) { succeed() }

  func succeed() {
    settings.sense = .none
    taskFile.sectorCount.current = Reason.status
    complete()
  }

  func fail(_ sense: Sense) {
    settings.sense = sense
    taskFile.sectorCount.current = Reason.status
    abort(sense.key << 4 | (sense.key == 5 ? ATAError.aborted : 0))
  }

  override func failed(_ job: Job, _ error: BlockError) {
    fail(medium == nil ? .noMedium : .unreadable)
  }

  /// Sends at most `limit` bytes of a reply.
  func answer(_ bytes: [UInt8], limit: Int) {
    let bytes = Array(bytes.prefix(limit))
    guard !bytes.isEmpty else { return succeed() }
    reply(bytes, usesDMA: settings.packetUsesDMA, blockLimit: byteCountLimit)
  }

  /// Sends sectors of the medium.
  func readSectors(first: Int, count: Int, raw: Bool = false) {
    guard medium != nil else { return fail(.noMedium) }
    guard count > 0 else { return succeed() }
    guard first >= 0, first <= sectorCount, count <= sectorCount - first else {
      return fail(.outOfRange)
    }
    begin(
      Transfer(
        direction: .toHost, usesDMA: settings.packetUsesDMA, blockLimit: byteCountLimit,
        isImage: true, imageOffset: UInt64(first) * UInt64(Self.sectorSize),
        imageCount: count * Self.sectorSize, rawSectors: raw))
  }

  /// The host's bound on a PIO block, even.
  private var byteCountLimit: Int {
    let limit = taskFile.byteCount & ~1
    return limit == 0 ? 0xFFFE : limit
  }
}

/// The bytes of a packet command, big-endian fields.
struct CommandPacket {
  private let bytes: [UInt8]

  init(_ bytes: [UInt8]) {
    self.bytes = bytes + Array(repeating: 0, count: max(0, ATAPIDrive.packetSize - bytes.count))
  }

  subscript(index: Int) -> UInt8 { bytes[index] }

  func word(_ at: Int) -> Int { Int(bytes[at]) << 8 | Int(bytes[at + 1]) }
  func triple(_ at: Int) -> Int { Int(bytes[at]) << 16 | word(at + 1) }
  func long(_ at: Int) -> Int { word(at) << 16 | word(at + 2) }
}

/// CD sectors as they lie on the disc.
enum CDSector {
  /// Mode 1 sectors with sync and header around each 2048 bytes of `data`; the error
  /// correction after them is left empty.
  static func raw(_ data: [UInt8], firstSector: Int) -> [UInt8] {
    var raw: [UInt8] = []
    raw.reserveCapacity(data.count / 2048 * 2352)
    for index in 0..<data.count / 2048 {
      let (minute, second, frame) = minuteSecondFrame(firstSector + index)
      raw.append(0)
      raw += Array(repeating: 0xFF, count: 10)
      raw += [0, decimal(minute), decimal(second), decimal(frame), 1]
      raw += data[index * 2048..<(index + 1) * 2048]
      raw += Array(repeating: 0, count: 288)
    }
    return raw
  }

  /// The address of a sector in minutes, seconds and frames, which begin 2 s early.
  static func minuteSecondFrame(_ sector: Int) -> (UInt8, UInt8, UInt8) {
    let frames = sector + 150
    return (
      UInt8(truncatingIfNeeded: frames / 75 / 60), UInt8(frames / 75 % 60), UInt8(frames % 75)
    )
  }

  private static func decimal(_ value: UInt8) -> UInt8 { (value / 10 % 10) << 4 | value % 10 }
}
