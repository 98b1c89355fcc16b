import DeviceModel

/// What disks and CD-ROM drives on an IDE channel have in common: the registers,
/// the state of a data transfer, and requests to the image behind.
///
/// Everything that a transfer needs to go on lies in `State`. A request that was
/// on its way to the image when the state was taken is made anew after restore:
/// reading or writing the same bytes twice does no harm.
package class IDEDrive {
  /// Data on its way between host and drive.
  package struct Transfer: Codable, Sendable, Equatable {
    package enum Direction: UInt8, Codable, Sendable { case toHost, toDevice }

    var direction: Direction
    var usesDMA: Bool
    /// Bytes per DRQ block in PIO.
    var blockLimit: Int
    /// Whether the bytes are the image's, not a reply or a packet.
    var isImage = false
    /// What of the image is still to be read or written.
    var imageOffset: UInt64 = 0
    var imageCount = 0
    /// A CD sector goes out with its sync, header and (empty) error correction.
    var rawSectors = false
    var buffer: [UInt8] = []
    /// How much of the buffer the host took or gave.
    var position = 0
    /// The present DRQ block within the buffer.
    var blockStart = 0
    var blockEnd = 0

    /// Whether its numbers fit together, which those of a damaged state need not.
    var isConsistent: Bool {
      let end = direction == .toHost ? buffer.count : blockEnd
      return blockLimit > 0 && imageCount >= 0 && 0 <= blockStart && blockStart <= position
        && position <= blockEnd && blockEnd <= max(end, 0)
        && (usesDMA || direction == .toHost || position == buffer.count)
    }
  }

  /// A request to the image that has not completed.
  package enum Job: Codable, Sendable, Equatable {
    case read(offset: UInt64, count: Int)
    case write(offset: UInt64, bytes: [UInt8])
    case flush
  }

  package struct State: Codable, Sendable {
    package var version = 1
    package var taskFile = TaskFile()
    package var interruptPending = false
    package var transfer: Transfer?
    package var job: Job?
    package var disk: ATADisk.Settings?
    package var cdrom: ATAPIDrive.Settings?
  }

  /// The most that is read or written in one request to the image.
  static let chunkSize = 128 << 10

  var taskFile = TaskFile()
  var transfer: Transfer?
  private(set) var job: Job?
  private(set) var interruptPending = false
  weak var channel: IDEChannel?
  private(set) var backend: (any BlockBackend)?
  /// Completions of requests that a reset overtook carry an older number.
  private var generation = 0

  init(backend: (any BlockBackend)?, state: State?) {
    self.backend = backend
    if let state {
      taskFile = state.taskFile
      interruptPending = state.interruptPending
      if let saved = state.transfer, saved.isConsistent { transfer = saved }
      job = state.job
    }
  }

  /// Makes the request that was under way when the state was taken.
  func resume() {
    if let job { start(job) }
  }

  func saveState() -> State {
    State(
      taskFile: taskFile, interruptPending: interruptPending, transfer: transfer, job: job)
  }

  func setBackend(_ backend: (any BlockBackend)?) { self.backend = backend }

  // MARK: - What kinds of drives differ in

  var isPacketDevice: Bool { false }

  /// Carries out a command; the drive is neither busy nor requesting data.
  func execute(_ command: UInt8) { abort() }

  /// A DRQ block of so many bytes is there for the host, or wanted from it.
  func offered(_ count: Int) {}

  /// The host took or gave so many bytes of the image.
  func moved(_ count: Int) {}

  /// The transfer has moved everything.
  func transferEnded(_ transfer: Transfer) { complete() }

  /// The host sent a whole block that is not for the image (a packet).
  func received(_ bytes: [UInt8]) {}

  func failed(_ job: Job, _ error: BlockError) { abort() }

  func flushed() { complete() }

  // MARK: - Reset

  /// SRST, EXECUTE DEVICE DIAGNOSTIC and DEVICE RESET.
  func softReset() {
    cancel()
    taskFile.setSignature(isPacketDevice: isPacketDevice)
    taskFile.error = 1
    // A packet device shows a clear status until its first command.
    taskFile.status = isPacketDevice ? [] : .idle
    setInterrupt(false)
  }

  func hardReset() {
    taskFile = TaskFile()
    softReset()
  }

  /// Forgets the transfer; what the image still does for it goes unheard.
  func cancel() {
    generation &+= 1
    transfer = nil
    job = nil
    backend?.forget()
  }

  // MARK: - Outcome

  func setInterrupt(_ pending: Bool) {
    interruptPending = pending
    channel?.interruptChanged(of: self)
  }

  func complete() {
    transfer = nil
    taskFile.status = .idle
    taskFile.error = 0
    setInterrupt(true)
  }

  func abort(_ error: UInt8 = ATAError.aborted) {
    cancel()
    taskFile.status = [.ready, .seekComplete, .error]
    taskFile.error = error
    setInterrupt(true)
  }

  // MARK: - Transfer

  /// Sends `bytes` to the host.
  func reply(_ bytes: [UInt8], usesDMA: Bool = false, blockLimit: Int = 512) {
    begin(
      Transfer(direction: .toHost, usesDMA: usesDMA, blockLimit: blockLimit, buffer: bytes))
  }

  func begin(_ transfer: Transfer) {
    self.transfer = transfer
    taskFile.error = 0
    switch transfer.direction {
    case .toHost: transfer.buffer.isEmpty ? fetch() : offer(interrupt: true)
    // The host knows that the first block is wanted.
    case .toDevice: offer(interrupt: false)
    }
  }

  /// Reads on from the image, or ends.
  private func fetch() {
    guard let transfer else { return }
    guard transfer.imageCount > 0 else { return transferEnded(transfer) }
    taskFile.status = [.busy]
    start(
      .read(offset: transfer.imageOffset, count: min(transfer.imageCount, Self.chunkSize)))
  }

  private func offer(interrupt: Bool) {
    guard let current = transfer else { return }
    taskFile.status = [.ready, .seekComplete, .dataRequest]
    guard !current.usesDMA else {
      channel?.runDMA()
      return
    }
    switch current.direction {
    case .toHost:
      transfer?.blockStart = current.position
      transfer?.blockEnd = min(current.position + current.blockLimit, current.buffer.count)
      offered(min(current.blockLimit, current.buffer.count - current.position))
    case .toDevice:
      let count =
        current.isImage ? min(current.blockLimit, current.imageCount) : current.blockLimit
      transfer?.buffer = []
      transfer?.position = 0
      transfer?.blockEnd = count
      offered(count)
    }
    if interrupt { setInterrupt(true) }
  }

  private func start(_ job: Job) {
    self.job = job
    generation &+= 1
    let started = generation
    guard let backend else { return failed(job, noMedium) }
    switch job {
    case .read(let offset, let count):
      backend.read(offset: offset, count: count) { [weak self] result in
        self?.ended(started, result) { $0.hasRead($1) }
      }
    case .write(let offset, let bytes):
      backend.write(offset: offset, bytes: bytes) { [weak self] result in
        self?.ended(started, result) { drive, _ in drive.hasWritten(bytes.count) }
      }
    case .flush:
      backend.flush { [weak self] result in
        self?.ended(started, result) { drive, _ in drive.flushed() }
      }
    }
  }

  private var noMedium: BlockError {
    BlockError(kind: .medium, context: "the drive has no medium")
  }

  private func ended<Value>(
    _ started: Int, _ result: Result<Value, BlockError>,
    _ success: (IDEDrive, Value) -> Void
  ) {
    guard started == generation, let ended = job else { return }
    job = nil
    switch result {
    case .success(let value): success(self, value)
    case .failure(let error): failed(ended, error)
    }
  }

  private func hasRead(_ bytes: [UInt8]) {
    guard var current = transfer else { return }
    let count = min(current.imageCount, Self.chunkSize)
    var data = bytes
    // An image that shrank under us reads as zeros.
    if data.count < count { data += Array(repeating: 0, count: count - data.count) }
    current.buffer =
      current.rawSectors
      ? CDSector.raw(data, firstSector: Int(clamping: current.imageOffset / 2048)) : data
    current.position = 0
    current.imageOffset &+= UInt64(count)
    current.imageCount -= count
    transfer = current
    offer(interrupt: true)
  }

  private func hasWritten(_ count: Int) {
    transfer?.imageOffset &+= UInt64(count)
    transfer?.imageCount -= count
    moved(count)
    guard let current = transfer else { return }
    if current.imageCount > 0 { offer(interrupt: true) } else { transferEnded(current) }
  }

  func flush() {
    taskFile.status = [.busy]
    start(.flush)
  }

  // MARK: - PIO

  /// The host reads the data register, `width` bytes.
  func readData(width: Int) -> UInt32 {
    guard taskFile.status.contains(.dataRequest), let current = transfer, !current.usesDMA,
      current.direction == .toHost
    else { return 0 }
    var value: UInt32 = 0
    var position = current.position
    for index in 0..<width where position < current.blockEnd {
      value |= UInt32(current.buffer[position]) << UInt32(index * 8)
      position += 1
    }
    transfer?.position = position
    if position >= current.blockEnd { blockTaken() }
    return value
  }

  private func blockTaken() {
    guard let current = transfer else { return }
    if current.isImage { moved(current.blockEnd - current.blockStart) }
    if current.position < current.buffer.count { offer(interrupt: true) } else { fetch() }
  }

  /// The host writes the data register, `width` bytes.
  func writeData(_ value: UInt32, width: Int) {
    // No copy of the transfer is held here: the buffer would be copied with each word.
    guard taskFile.status.contains(.dataRequest), transfer?.usesDMA == false,
      transfer?.direction == .toDevice, let end = transfer?.blockEnd
    else { return }
    var position = transfer?.position ?? 0
    for index in 0..<width where position < end {
      transfer?.buffer.append(UInt8(truncatingIfNeeded: value >> UInt32(index * 8)))
      position += 1
    }
    transfer?.position = position
    guard position >= end, let filled = transfer else { return }
    if filled.isImage {
      store(filled.buffer)
    } else {
      transfer = nil
      received(filled.buffer)
    }
  }

  private func store(_ bytes: [UInt8]) {
    guard let current = transfer else { return }
    transfer?.buffer = []
    transfer?.position = 0
    transfer?.blockEnd = 0
    taskFile.status = [.busy]
    start(.write(offset: current.imageOffset, bytes: bytes))
  }

  // MARK: - DMA, called by the bus master

  /// Whether bytes can move now.
  var isReadyForDMA: Bool {
    transfer?.usesDMA == true && job == nil && taskFile.status.contains(.dataRequest)
  }

  /// The bytes for the host; `nil` when the drive wants bytes instead.
  var bytesForMemory: [UInt8]? {
    guard let transfer, transfer.direction == .toHost else { return nil }
    return transfer.buffer
  }

  /// How many bytes the drive wants next.
  var countFromMemory: Int { min(transfer?.imageCount ?? 0, Self.chunkSize) }

  /// All of `bytesForMemory` went to the host.
  func memoryWritten() {
    guard let current = transfer else { return }
    transfer?.buffer = []
    transfer?.position = 0
    if current.isImage { moved(current.buffer.count) }
    fetch()
  }

  /// `countFromMemory` bytes came from the host.
  func memoryRead(_ bytes: [UInt8]) { store(bytes) }
}
