import DeviceModel

/// The block device (VIRTIO 1.2, section 5.2) over an image.
package final class VirtioBlock: VirtioDevice, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    var features: UInt64
    var requests: [Request]
  }

  /// A request under way, as far as it got.
  struct Request: Codable, Sendable {
    var queue: Int
    var chain: VirtqueueChain
    var type: UInt32
    /// Where in the image, in bytes.
    var offset: UInt64
    /// Bytes of data, and how many were moved.
    var count: Int
    var moved = 0
    /// Ranges of DISCARD and WRITE_ZEROES that are still to do.
    var ranges: [Range] = []
    /// All was written; what remains is to make it durable.
    var isFlushing = false
  }

  struct Range: Codable, Sendable {
    var offset: UInt64
    var count: UInt64
    var mayDiscard: Bool
  }

  private enum Feature {
    static let segmentMaximum: UInt64 = 1 << 2
    static let readOnly: UInt64 = 1 << 5
    static let blockSize: UInt64 = 1 << 6
    static let flush: UInt64 = 1 << 9
    static let topology: UInt64 = 1 << 10
    static let multiqueue: UInt64 = 1 << 12
    static let discard: UInt64 = 1 << 13
    static let writeZeroes: UInt64 = 1 << 14
  }

  private enum RequestType {
    static let read: UInt32 = 0
    static let write: UInt32 = 1
    static let flush: UInt32 = 4
    static let identify: UInt32 = 8
    static let discard: UInt32 = 11
    static let writeZeroes: UInt32 = 13
  }

  private enum Answer {
    static let ok: UInt8 = 0
    static let ioError: UInt8 = 1
    static let unsupported: UInt8 = 2
  }

  static let queueSize: UInt16 = 256
  package static let maximumQueues = 16
  private static let sector: UInt64 = 512
  private static let headerSize = 16
  private static let rangeSize = 16
  private static let identifierSize = 20
  /// Larger requests are carried out in parts of this size, which bounds buffers.
  private static let partSize = 512 << 10
  /// Requests beyond these stay in their queues.
  private static let mostUnderWay = 64
  private static let mostRanges = 16
  /// Sectors of one DISCARD or WRITE_ZEROES range: 1 GiB.
  private static let mostRangeSectors: UInt32 = 1 << 21

  package let type: UInt16 = 2
  package let name = "virtio-blk"
  package let classCode: UInt32 = 0x010000
  package let queueSizes: [UInt16]
  package weak var transport: (any VirtioTransport)?
  private let backend: any BlockBackend
  private let serial: [UInt8]
  private var agreed: UInt64
  private var requests: [UInt64: Request] = [:]
  private var nextKey: UInt64 = 0
  /// Guest memory that reads under way are written to.
  private var spaces: [UInt64: GuestSpace] = [:]
  /// Queues that were not emptied because too much was under way.
  private var waiting: Set<Int> = []

  /// - Parameters:
  ///   - serial: what GET_ID answers; cut to 20 bytes.
  ///   - queues: 1 … 16.
  package init(backend: any BlockBackend, serial: String, queues: Int = 1, state: State?) {
    self.backend = backend
    self.serial = Array(serial.utf8.prefix(Self.identifierSize))
    queueSizes = Array(
      repeating: Self.queueSize, count: min(max(queues, 1), Self.maximumQueues))
    agreed = state?.features ?? 0
    for request in state?.requests ?? [] { add(request) }
  }

  package func saveState() -> State {
    State(features: agreed, requests: requests.sorted { $0.key < $1.key }.map(\.value))
  }

  package func reset() {
    backend.settle()
    for key in spaces.keys { giveBackSpace(key) }
    backend.forget()
    requests = [:]
    waiting = []
    agreed = 0
  }

  package func start(features: UInt64) { agreed = features }

  package func resume() {
    for key in requests.keys.sorted() { advance(key) }
  }

  package var features: UInt64 {
    let always =
      Feature.segmentMaximum | Feature.blockSize | Feature.flush | Feature.topology
    return always | (queueSizes.count > 1 ? Feature.multiqueue : 0)
      | (backend.isReadOnly ? Feature.readOnly : Feature.discard | Feature.writeZeroes)
  }

  // MARK: Configuration space

  /// struct virtio_blk_config.
  private var configuration: [UInt8] {
    var bytes = LittleEndian.bytes(backend.byteCount / Self.sector)
    bytes += LittleEndian.bytes(UInt32(0))
    bytes += LittleEndian.bytes(UInt32(Self.queueSize) - 2)
    bytes += [0, 0, 0, 0]  // no geometry
    bytes += LittleEndian.bytes(UInt32(Self.sector))
    // 4 KiB physical blocks, aligned; transfers best in such, up to a part.
    bytes += [3, 0] + LittleEndian.bytes(UInt16(8))
    bytes += LittleEndian.bytes(UInt32(Self.partSize) / UInt32(Self.sector))
    bytes += [1, 0] + LittleEndian.bytes(UInt16(queueSizes.count))
    for value in [
      Self.mostRangeSectors, UInt32(Self.mostRanges), 8, Self.mostRangeSectors,
      UInt32(Self.mostRanges),
    ] {
      bytes += LittleEndian.bytes(value)
    }
    return bytes + [1, 0, 0, 0]
  }

  package func readConfiguration(_ offset: Int) -> UInt8 {
    let bytes = configuration
    return bytes.indices.contains(offset) ? bytes[offset] : 0
  }

  package func writeConfiguration(_ offset: Int, _ value: UInt8) {}

  // MARK: Requests

  package func notify(queue: Int) {
    guard let transport else { return }
    for _ in 0..<Self.queueSize {
      guard requests.count < Self.mostUnderWay else {
        waiting.insert(queue)
        return
      }
      guard let chain = transport.nextChain(queue) else { return }
      begin(chain, queue)
    }
    transport.notifyAgain(queue)
  }

  private func begin(_ chain: VirtqueueChain, _ queue: Int) {
    guard let transport else { return }
    guard chain.writableCount >= 1 else {
      return transport.fail("a block request has no room for its status")
    }
    guard let header = transport.read(chain, from: 0, count: Self.headerSize) else { return }
    let type = LittleEndian.number(header, at: 0, UInt32.self)
    let sector = LittleEndian.number(header, at: 8, UInt64.self)
    let (offset, overflows) = sector.multipliedReportingOverflow(by: Self.sector)
    var request = Request(queue: queue, chain: chain, type: type, offset: offset, count: 0)
    switch type {
    case RequestType.read: request.count = chain.writableCount - 1
    case RequestType.write: request.count = chain.readableCount - Self.headerSize
    case RequestType.flush: request.isFlushing = true
    case RequestType.identify: return identify(request)
    case RequestType.discard, RequestType.writeZeroes:
      switch ranges(of: chain, type) {
      case .success(let ranges): request.ranges = ranges
      case .failure(let refusal): return finish(request, refusal.answer)
      }
    default: return finish(request, Answer.unsupported)
    }
    if request.count > 0 {
      guard !overflows, request.count % Int(Self.sector) == 0, contains(offset, request.count)
      else { return finish(request, Answer.ioError) }
    }
    advance(add(request))
  }

  @discardableResult
  private func add(_ request: Request) -> UInt64 {
    nextKey &+= 1
    requests[nextKey] = request
    return nextKey
  }

  private func contains(_ offset: UInt64, _ count: Int) -> Bool {
    offset <= backend.byteCount && UInt64(count) <= backend.byteCount - offset
  }

  private func identify(_ request: Request) {
    let padding = [UInt8](repeating: 0, count: Self.identifierSize - serial.count)
    guard request.chain.writableCount > Self.identifierSize else {
      return finish(request, Answer.ioError)
    }
    guard transport?.write(serial + padding, to: request.chain, at: 0) == true else { return }
    finish(request, Answer.ok, written: Self.identifierSize)
  }

  private struct Refusal: Error {
    let answer: UInt8
  }

  /// struct virtio_blk_discard_write_zeroes: sector, count, flags (section 5.2.6.1).
  private func ranges(of chain: VirtqueueChain, _ type: UInt32) -> Result<[Range], Refusal> {
    let feature = type == RequestType.discard ? Feature.discard : Feature.writeZeroes
    guard agreed & feature != 0 else { return .failure(Refusal(answer: Answer.unsupported)) }
    let count = chain.readableCount - Self.headerSize
    guard count > 0, count % Self.rangeSize == 0, count / Self.rangeSize <= Self.mostRanges,
      let bytes = transport?.read(chain, from: Self.headerSize, count: count)
    else { return .failure(Refusal(answer: Answer.ioError)) }
    var ranges: [Range] = []
    for at in stride(from: 0, to: count, by: Self.rangeSize) {
      let sector = LittleEndian.number(bytes, at: at, UInt64.self)
      let sectors = LittleEndian.number(bytes, at: at + 8, UInt32.self)
      let flags = LittleEndian.number(bytes, at: at + 12, UInt32.self)
      let (offset, overflows) = sector.multipliedReportingOverflow(by: Self.sector)
      let allowed: UInt32 = type == RequestType.discard ? 0 : 1
      guard flags & ~allowed == 0 else { return .failure(Refusal(answer: Answer.unsupported)) }
      let length = UInt64(sectors) * Self.sector
      guard !overflows, sectors <= Self.mostRangeSectors, contains(offset, Int(length)) else {
        return .failure(Refusal(answer: Answer.ioError))
      }
      ranges.append(Range(offset: offset, count: length, mayDiscard: flags & 1 != 0))
    }
    return .success(ranges)
  }

  /// Makes the image do the next part of a request.
  private func advance(_ key: UInt64) {
    guard let request = requests[key] else { return }
    let part = min(request.count - request.moved, Self.partSize)
    let offset = request.offset &+ UInt64(request.moved)
    if request.isFlushing {
      backend.flush { [weak self] in self?.ended(key, $0) }
    } else if let range = request.ranges.first {
      let completion: (Result<Void, BlockError>) -> Void = { [weak self] in
        self?.cleared(key, $0)
      }
      if request.type == RequestType.discard {
        backend.discard(offset: range.offset, count: range.count, completion: completion)
      } else {
        backend.writeZeroes(
          offset: range.offset, count: range.count, mayDiscard: range.mayDiscard,
          completion: completion)
      }
    } else if part == 0 {
      moved(key)
    } else if request.type == RequestType.read {
      backend.read(
        offset: offset, count: part, target: { [weak self] in self?.target(key, part) }
      ) { [weak self] in self?.wasRead(key, part, $0) }
    } else {
      backend.write(
        offset: offset, count: part, source: { [weak self] in self?.source(key, part) }
      ) { [weak self] in self?.wasWritten(key, part, $0) }
    }
  }

  /// Where a request's next part is read to; `nil` for one that a reset took back.
  private func target(_ key: UInt64, _ count: Int) -> GuestSpace? {
    guard let request = requests[key], let transport else { return nil }
    guard let space = request.chain.space(at: request.moved, count: count, transport.memory)
    else {
      requests[key] = nil
      transport.fail("a buffer is too short or not in RAM")
      return nil
    }
    spaces[key] = space
    return space
  }

  private func giveBackSpace(_ key: UInt64) {
    if let space = spaces.removeValue(forKey: key) { transport?.memory.wrote(space) }
  }

  /// What a request writes next; `nil` for one that a reset took back.
  private func source(_ key: UInt64, _ count: Int) -> GuestBytes? {
    guard let request = requests[key], let transport else { return nil }
    let from = Self.headerSize + request.moved
    if let bytes = request.chain.inPlace(from: from, count: count, transport.memory) {
      return bytes
    }
    requests[key] = nil
    transport.fail("a buffer is too short or not in RAM")
    return nil
  }

  /// All data is where it belongs. Without FLUSH the driver relies on that (5.2.6.2).
  private func moved(_ key: UInt64) {
    guard let request = requests[key] else { return }
    if request.type != RequestType.read && agreed & Feature.flush == 0 {
      requests[key]?.isFlushing = true
      advance(key)
    } else {
      ended(key, .success(()))
    }
  }

  // MARK: Completions, which a reset leaves without a request

  private func wasRead(_ key: UInt64, _ count: Int, _ result: Result<Void, BlockError>) {
    giveBackSpace(key)
    guard case .success = result else { return ended(key, result) }
    proceed(key, count)
  }

  private func wasWritten(_ key: UInt64, _ count: Int, _ result: Result<Void, BlockError>) {
    guard case .success = result else { return ended(key, result) }
    proceed(key, count)
  }

  private func proceed(_ key: UInt64, _ count: Int) {
    guard var request = requests[key] else { return }
    request.moved += count
    requests[key] = request
    if request.moved < request.count { advance(key) } else { moved(key) }
  }

  private func cleared(_ key: UInt64, _ result: Result<Void, BlockError>) {
    guard case .success = result, requests[key]?.ranges.isEmpty == false else {
      return ended(key, result)
    }
    requests[key]?.ranges.removeFirst()
    if requests[key]?.ranges.isEmpty == true { moved(key) } else { advance(key) }
  }

  private func ended(_ key: UInt64, _ result: Result<Void, BlockError>) {
    guard let request = requests.removeValue(forKey: key) else { return }
    let written = request.type == RequestType.read ? request.moved : 0
    if case .success = result {
      finish(request, Answer.ok, written: written)
    } else {
      finish(request, Answer.ioError, written: written)
    }
    guard let queue = waiting.popFirst() else { return }
    transport?.notifyAgain(queue)
  }

  /// The status is the last byte that the device may write.
  private func finish(_ request: Request, _ answer: UInt8, written: Int = 0) {
    guard let transport,
      transport.write([answer], to: request.chain, at: request.chain.writableCount - 1)
    else { return }
    transport.complete(request.chain, written: written + 1, on: request.queue)
  }
}
