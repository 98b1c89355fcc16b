import DeviceModel

/// An ATA hard disk of 512-byte sectors over an image.
///
/// Commands as in ATA/ATAPI-6 (T13 1410D); QEMU's disks answer alike.
package final class ATADisk: IDEDrive {
  enum Command {
    static let recalibrate: ClosedRange<UInt8> = 0x10...0x1F
    static let readSectors: ClosedRange<UInt8> = 0x20...0x21
    static let readSectorsExt: UInt8 = 0x24
    static let readDMAExt: UInt8 = 0x25
    static let readNativeMaxExt: UInt8 = 0x27
    static let readMultipleExt: UInt8 = 0x29
    static let writeSectors: ClosedRange<UInt8> = 0x30...0x31
    static let writeSectorsExt: UInt8 = 0x34
    static let writeDMAExt: UInt8 = 0x35
    static let writeMultipleExt: UInt8 = 0x39
    static let readVerify: ClosedRange<UInt8> = 0x40...0x41
    static let readVerifyExt: UInt8 = 0x42
    static let seek: ClosedRange<UInt8> = 0x70...0x7F
    static let initializeParameters: UInt8 = 0x91
    static let smart: UInt8 = 0xB0
    static let readMultiple: UInt8 = 0xC4
    static let writeMultiple: UInt8 = 0xC5
    static let setMultiple: UInt8 = 0xC6
    static let readDMA: ClosedRange<UInt8> = 0xC8...0xC9
    static let writeDMA: ClosedRange<UInt8> = 0xCA...0xCB
    static let powerModes: Set<UInt8> = [
      0x94, 0x95, 0x96, 0x97, 0x99, 0xE0, 0xE1, 0xE2, 0xE3, 0xE6,
    ]
    static let checkPower: Set<UInt8> = [0x98, 0xE5]
    static let flushCache: UInt8 = 0xE7
    static let flushCacheExt: UInt8 = 0xEA
    static let identify: UInt8 = 0xEC
    static let setFeatures: UInt8 = 0xEF
    static let readNativeMax: UInt8 = 0xF8
  }

  package struct Settings: Codable, Sendable {
    var version = 1
    /// Sectors per block of READ and WRITE MULTIPLE; 0 while not set.
    var multiple = 16
    var heads = ATADisk.defaultHeads
    var sectorsPerTrack = ATADisk.defaultSectorsPerTrack
    var writeCache = true
    var lookAhead = true
    var smartEnabled = true
    /// The transfer mode set last, as SET FEATURES encodes it.
    var transferMode: UInt8 = 0x45
    /// The command at work has 48-bit addresses.
    var isExtended = false
    /// The interrupt after the present transfer means its end.
    var endsSilently = false
  }

  static let sectorSize = 512
  static let maximumMultiple = 16
  static let defaultHeads = 16
  static let defaultSectorsPerTrack = 63

  private(set) var settings: Settings
  let serial: String

  init(backend: any BlockBackend, serial: String, state: State?) {
    settings = state?.disk ?? Settings()
    self.serial = serial
    super.init(backend: backend, state: state)
    if state == nil { hardReset() }
  }

  override func saveState() -> State {
    var state = super.saveState()
    state.disk = settings
    return state
  }

  override func hardReset() {
    settings = Settings()
    super.hardReset()
  }

  var sectorCount: UInt64 { min((backend?.byteCount ?? 0) / 512, 1 << 48) }

  // MARK: - Commands

  override func execute(_ command: UInt8) {
    switch command {
    case Command.readSectors: read(blockSectors: 1)
    case Command.readSectorsExt: read(blockSectors: 1, extended: true)
    case Command.readMultiple: read(blockSectors: settings.multiple)
    case Command.readMultipleExt: read(blockSectors: settings.multiple, extended: true)
    case Command.readDMA: read(blockSectors: nil)
    case Command.readDMAExt: read(blockSectors: nil, extended: true)
    case Command.writeSectors: write(blockSectors: 1)
    case Command.writeSectorsExt: write(blockSectors: 1, extended: true)
    case Command.writeMultiple: write(blockSectors: settings.multiple)
    case Command.writeMultipleExt: write(blockSectors: settings.multiple, extended: true)
    case Command.writeDMA: write(blockSectors: nil)
    case Command.writeDMAExt: write(blockSectors: nil, extended: true)
    case Command.readVerify: verify(extended: false)
    case Command.readVerifyExt: verify(extended: true)
    case Command.flushCache, Command.flushCacheExt: flush()
    case Command.identify: reply(identification, endsSilently: true)
    case Command.setFeatures: setFeatures()
    case Command.setMultiple: setMultiple()
    case Command.initializeParameters: initializeParameters()
    case Command.readNativeMax: readNativeMax(extended: false)
    case Command.readNativeMaxExt: readNativeMax(extended: true)
    case Command.smart: smart()
    case let command where Command.checkPower.contains(command):
      taskFile.sectorCount.current = 0xFF  // active
      complete()
    case Command.recalibrate, Command.seek: complete()
    case let command where Command.powerModes.contains(command): complete()
    default: abort()
    }
  }

  private func reply(_ bytes: [UInt8], endsSilently: Bool) {
    settings.endsSilently = endsSilently
    reply(bytes)
  }

  private func read(blockSectors: Int?, extended: Bool = false) {
    guard let range = addressedRange(extended: extended, blockSectors: blockSectors) else { return }
    // The host took the last block after its interrupt; there is none behind it.
    settings.endsSilently = blockSectors != nil
    begin(
      Transfer(
        direction: .toHost, usesDMA: blockSectors == nil, blockLimit: (blockSectors ?? 1) * 512,
        isImage: true, imageOffset: range.offset, imageCount: range.count))
  }

  private func write(blockSectors: Int?, extended: Bool = false) {
    guard let range = addressedRange(extended: extended, blockSectors: blockSectors) else { return }
    guard backend?.isReadOnly == false else { return abort() }
    settings.endsSilently = false
    begin(
      Transfer(
        direction: .toDevice, usesDMA: blockSectors == nil, blockLimit: (blockSectors ?? 1) * 512,
        isImage: true, imageOffset: range.offset, imageCount: range.count))
  }

  private func verify(extended: Bool) {
    if addressedRange(extended: extended, blockSectors: 1) != nil { complete() }
  }

  override func transferEnded(_ ended: Transfer) {
    if ended.direction == .toDevice && !settings.writeCache { return flush() }
    let silent = settings.endsSilently
    transfer = nil
    taskFile.status = .idle
    if !silent { setInterrupt(true) }
  }

  override func moved(_ count: Int) {
    advance(UInt64(count / Self.sectorSize))
  }

  override func failed(_ job: Job, _ error: BlockError) {
    switch (job, error.kind) {
    case (_, .outOfRange): abort(ATAError.notFound)
    case (.read, _): abort(ATAError.uncorrectable)
    default: abort()
    }
  }

  // MARK: - Addresses

  /// The bytes of the image that the registers name; aborts when they are not
  /// all there, or READ MULTIPLE is switched off.
  private func addressedRange(
    extended: Bool, blockSectors: Int?
  ) -> (offset: UInt64, count: Int)? {
    settings.isExtended = extended
    guard blockSectors != 0 else {
      abort()
      return nil
    }
    var count = Int(taskFile.sectorCount.current)
    if extended {
      count |= Int(taskFile.sectorCount.previous) << 8
      if count == 0 { count = 0x1_0000 }
    } else if count == 0 {
      count = 0x100
    }
    guard let first = address, first + UInt64(count) <= sectorCount else {
      abort(ATAError.notFound)
      return nil
    }
    return (first * 512, count * Self.sectorSize)
  }

  /// The sector that the registers name.
  private var address: UInt64? {
    let low = UInt64(taskFile.lbaLow.current)
    let cylinder = UInt64(taskFile.lbaMid.current) | UInt64(taskFile.lbaHigh.current) << 8
    let head = UInt64(taskFile.device & 0x0F)
    if settings.isExtended {
      let high =
        UInt64(taskFile.lbaLow.previous) | UInt64(taskFile.lbaMid.previous) << 8
        | UInt64(taskFile.lbaHigh.previous) << 16
      return high << 24 | cylinder << 8 | low
    }
    if taskFile.device & TaskFile.lbaBit != 0 { return head << 24 | cylinder << 8 | low }
    guard low > 0 else { return nil }
    return (cylinder * UInt64(settings.heads) + head) * UInt64(settings.sectorsPerTrack) + low - 1
  }

  private func setAddress(_ sector: UInt64) {
    func byte(_ shift: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: sector >> shift) }
    if settings.isExtended {
      taskFile.lbaLow = TaskFile.Pair(current: byte(0), previous: byte(24))
      taskFile.lbaMid = TaskFile.Pair(current: byte(8), previous: byte(32))
      taskFile.lbaHigh = TaskFile.Pair(current: byte(16), previous: byte(40))
    } else if taskFile.device & TaskFile.lbaBit != 0 {
      taskFile.lbaLow.current = byte(0)
      taskFile.lbaMid.current = byte(8)
      taskFile.lbaHigh.current = byte(16)
      taskFile.device = taskFile.device & 0xF0 | byte(24) & 0x0F
    } else {
      let track = UInt64(max(settings.sectorsPerTrack, 1))
      let heads = UInt64(max(settings.heads, 1))
      taskFile.lbaLow.current = UInt8(truncatingIfNeeded: sector % track + 1)
      taskFile.device = taskFile.device & 0xF0 | UInt8(truncatingIfNeeded: sector / track % heads)
      let cylinder = sector / track / heads
      taskFile.lbaMid.current = UInt8(truncatingIfNeeded: cylinder)
      taskFile.lbaHigh.current = UInt8(truncatingIfNeeded: cylinder >> 8)
    }
  }

  /// The registers follow the transfer.
  private func advance(_ sectors: UInt64) {
    guard let address else { return }
    setAddress(address &+ sectors)
    let left =
      (Int(taskFile.sectorCount.current)
        | (settings.isExtended ? Int(taskFile.sectorCount.previous) << 8 : 0))
      &- Int(truncatingIfNeeded: sectors)
    taskFile.sectorCount.current = UInt8(truncatingIfNeeded: left)
    if settings.isExtended { taskFile.sectorCount.previous = UInt8(truncatingIfNeeded: left >> 8) }
  }

  private func readNativeMax(extended: Bool) {
    guard sectorCount > 0 else { return abort() }
    settings.isExtended = extended
    taskFile.device |= TaskFile.lbaBit
    setAddress(extended ? sectorCount - 1 : min(sectorCount, 1 << 28) - 1)
    complete()
  }

  // MARK: - Settings

  private func setMultiple() {
    let count = Int(taskFile.sectorCount.current)
    guard count == 0 || count <= Self.maximumMultiple && count & (count - 1) == 0 else {
      return abort()
    }
    settings.multiple = count
    complete()
  }

  private func initializeParameters() {
    guard taskFile.sectorCount.current > 0 else { return abort() }
    settings.heads = Int(taskFile.device & 0x0F) + 1
    settings.sectorsPerTrack = Int(taskFile.sectorCount.current)
    complete()
  }

  private func setFeatures() {
    let value = taskFile.sectorCount.current
    switch taskFile.features.current {
    case 0x02: settings.writeCache = true
    case 0x82:
      settings.writeCache = false
      return flush()
    case 0x03:
      // PIO default, PIO 0…4, multiword DMA 0…2, Ultra DMA 0…5.
      guard
        value <= 1 || (0x08...0x0C).contains(value) || (0x20...0x22).contains(value)
          || (0x40...0x45).contains(value)
      else { return abort() }
      settings.transferMode = value
    case 0xAA: settings.lookAhead = true
    case 0x55: settings.lookAhead = false
    // Power management, acoustic management, reverting to defaults: nothing to do.
    case 0x05, 0x85, 0x42, 0xC2, 0x66, 0xCC: break
    default: return abort()
    }
    complete()
  }

  private func smart() {
    let signature = taskFile.lbaMid.current == 0x4F && taskFile.lbaHigh.current == 0xC2
    let feature = taskFile.features.current
    guard signature, settings.smartEnabled || feature == 0xD8 else { return abort() }
    switch feature {
    case 0xD0, 0xD1:
      // Data and thresholds without attributes: revision 1, a valid checksum.
      reply([0x01] + Array(repeating: 0, count: 510) + [0xFF], endsSilently: true)
    case 0xD8: finishSmart { $0.smartEnabled = true }
    case 0xD9: finishSmart { $0.smartEnabled = false }
    // Autosave on or off; status "no threshold exceeded" is the signature itself.
    case 0xD2, 0xDA: complete()
    default: abort()
    }
  }

  private func finishSmart(_ change: (inout Settings) -> Void) {
    change(&settings)
    complete()
  }
}
