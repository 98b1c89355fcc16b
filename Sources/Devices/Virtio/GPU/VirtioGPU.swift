import DeviceModel

/// The graphics card (VIRTIO 1.2, section 5.7) in its 2D mode: pictures in host memory
/// that the guest's driver fills and shows on one output or several, a pointer for each,
/// and monitors whose size follows the viewer's.
package final class VirtioGPU: VirtioDevice, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    /// events_read.
    var events: UInt32 = 0
    var outputs: [Output]
    var resources: [GraphicsResource] = []
    /// The driver has shown something: the picture is the card's from then on.
    var isActive = false
  }

  /// A connector, its monitor, and what the driver shows there.
  struct Output: Codable, Sendable {
    var width: Int
    var height: Int
    /// 0 for nothing.
    var resource: UInt32 = 0
    var rect = Rect(x: 0, y: 0, width: 0, height: 0)
    var cursor = Cursor()
  }

  struct Cursor: Codable, Sendable {
    var width = 0
    var height = 0
    var hotX = 0
    var hotY = 0
    var pixels: [UInt8] = []
  }

  private enum Feature {
    static let edid: UInt64 = 1 << 1
  }

  /// VIRTIO_GPU_EVENT_DISPLAY.
  private static let displayEvent: UInt32 = 1
  private static let controlQueue = 0
  private static let cursorQueue = 1
  /// Pointers have this size (section 5.7.6.10).
  private static let cursorSide = 64
  /// Scanouts that struct virtio_gpu_resp_display_info has room for.
  private static let describedOutputs = 16
  private static let mostResources = 4096
  /// Pieces of guest memory behind one picture; drivers' are pages at the smallest.
  private static let mostSegments = 65_536
  /// Of monitors, until a viewer wants another.
  private static let firstSize = EDID.Mode(width: 1024, height: 768)
  /// What is copied in one go, because that keeps the device lock.
  private static let mostBytesAtOnce = 32 << 20

  package static let maximumOutputs = 4
  /// No picture is wider or higher.
  package static let maximumSide = 8192
  package static let minimumSide = 64
  /// Bytes that its memory should have: sparse memory is fine.
  package static let memorySize = 256 << 20

  package let type: UInt16 = 16
  package let name = "virtio-gpu"
  package let classCode: UInt32 = 0x03_0000
  package let features: UInt64 = Feature.edid
  package let queueSizes: [UInt16] = [256, 16]
  package weak var transport: (any VirtioTransport)?
  /// Called when there is something to take with `takeUpdate`.
  var onChange: (() -> Void)?
  /// Called with another pointer.
  package var onCursor: ((CursorImage) -> Void)?
  private let memory: GraphicsMemory
  private let screen: GraphicsScreen
  private var state: State
  private var resources: [UInt32: GraphicsResource] = [:]
  private var copied = 0

  /// - Parameters:
  ///   - memory: for pictures; its contents are kept by `Machine`, also in saved states.
  ///   - outputs: 1 … 4, with a monitor each.
  package init(memory: any SharedBytes, outputs: Int, state: State?) {
    self.memory = GraphicsMemory(memory)
    screen = GraphicsScreen(self.memory)
    let monitors = Array(
      repeating: Output(width: Self.firstSize.width, height: Self.firstSize.height),
      count: min(max(outputs, 1), Self.maximumOutputs))
    self.state = state ?? State(outputs: monitors)
    if self.state.outputs.count != monitors.count { self.state = State(outputs: monitors) }
    for resource in self.state.resources
    where resource.isSound && self.memory.claim(resource.offset, count: resource.byteCount) {
      resources[resource.identifier] = resource
    }
    self.state.resources = []
    if self.state.isActive { show() }
  }

  package func saveState() -> State {
    var saved = state
    saved.resources = resources.values.sorted { $0.identifier < $1.identifier }
    return saved
  }

  /// What the card's memory holds, in bytes from its start.
  package var usedMemory: [Range<Int>] { memory.ranges }

  /// Monitors keep the size that viewers gave them.
  package func reset() {
    for resource in resources.values { memory.free(resource.offset) }
    resources = [:]
    screen.reset()
    state = State(outputs: state.outputs.map { Output(width: $0.width, height: $0.height) })
    tellCursor()
    onChange?()
  }

  package func start(features: UInt64) {}
  package func resume() { screen.composeAgain() }

  // MARK: For displays

  /// The picture and what changed in it; `nil` while the driver has shown none.
  func takeUpdate() -> ScanoutUpdate? { state.isActive ? screen.takeUpdate() : nil }

  /// Monitors that make up this size together, side by side: the guest's driver is told,
  /// and may choose that mode.
  package func resize(width: Int, height: Int) {
    let count = state.outputs.count
    var sizes: [(Int, Int)] = []
    for index in 0..<count {
      let share = width / count + (index < width % count ? 1 : 0)
      sizes.append((Self.clamp(share), Self.clamp(height)))
    }
    guard zip(sizes, state.outputs).contains(where: { $0 != ($1.width, $1.height) }) else {
      return
    }
    for (index, size) in sizes.enumerated() {
      (state.outputs[index].width, state.outputs[index].height) = size
    }
    state.events |= Self.displayEvent
    transport?.configurationChanged()
  }

  private static func clamp(_ side: Int) -> Int { min(max(side, minimumSide), maximumSide) }

  /// The pointer as it is; hidden while the driver has none.
  package var cursor: CursorImage {
    for output in state.outputs where output.cursor.width > 0 {
      let cursor = output.cursor
      if let image = CursorImage(
        width: cursor.width, height: cursor.height, hotX: cursor.hotX, hotY: cursor.hotY,
        pixels: cursor.pixels)
      {
        return image
      }
    }
    return .hidden
  }

  private func tellCursor() { onCursor?(cursor) }

  // MARK: Configuration space

  /// struct virtio_gpu_config (section 5.7.4).
  package func readConfiguration(_ offset: Int) -> UInt8 {
    let words = [state.events, 0, UInt32(state.outputs.count), 0]
    guard offset / 4 < words.count else { return 0 }
    return UInt8(truncatingIfNeeded: words[offset / 4] >> (8 * (offset % 4)))
  }

  /// events_clear takes events back.
  package func writeConfiguration(_ offset: Int, _ value: UInt8) {
    guard (4..<8).contains(offset) else { return }
    state.events &= ~(UInt32(value) << (8 * UInt32(offset - 4)))
  }

  // MARK: Queues

  package func notify(queue: Int) {
    guard let transport, queueSizes.indices.contains(queue) else { return }
    copied = 0
    for _ in 0..<queueSizes[queue] {
      guard copied < Self.mostBytesAtOnce else { break }
      guard let chain = transport.nextChain(queue) else { return }
      let isDone =
        queue == Self.controlQueue ? control(chain, transport) : point(chain, transport)
      guard isDone else { return }
    }
    transport.notifyAgain(queue)
  }

  /// `false` when the device is broken now.
  private func control(_ chain: VirtqueueChain, _ transport: any VirtioTransport) -> Bool {
    guard let request = request(chain, transport) else { return false }
    let answer = answer(request, chain, transport)
    guard transport.isRunning else { return false }
    let bytes = answer.bytes(to: request).prefix(chain.writableCount)
    guard transport.write(Array(bytes), to: chain, at: 0) else { return false }
    transport.complete(chain, written: bytes.count, on: Self.controlQueue)
    return true
  }

  private func request(_ chain: VirtqueueChain, _ transport: any VirtioTransport)
    -> GraphicsRequest?
  {
    guard chain.readableCount >= GraphicsCommand.headerSize else {
      transport.fail("a command of \(chain.readableCount) bytes")
      return nil
    }
    return transport.read(
      chain, from: 0, count: min(chain.readableCount, GraphicsCommand.longest)
    ).map { GraphicsRequest($0) }
  }

  private func answer(
    _ request: GraphicsRequest, _ chain: VirtqueueChain, _ transport: any VirtioTransport
  ) -> GraphicsAnswer {
    switch request.type {
    case GraphicsCommand.getDisplayInfo: return .displayInfo(displayInfo)
    case GraphicsCommand.getEDID: return request.has(8) ? edid(request) : .invalidParameter
    case GraphicsCommand.resourceCreate2D:
      return request.has(16) ? create(request) : .invalidParameter
    case GraphicsCommand.resourceUnref:
      return request.has(8) ? unreference(request.word(0)) : .invalidParameter
    case GraphicsCommand.setScanout:
      return request.has(24) ? setScanout(request) : .invalidParameter
    case GraphicsCommand.resourceFlush:
      return request.has(24) ? flush(request) : .invalidParameter
    case GraphicsCommand.transferToHost2D:
      return request.has(32) ? transfer(request, transport) : .invalidParameter
    case GraphicsCommand.resourceAttachBacking:
      return request.has(8) ? attach(request, chain, transport) : .invalidParameter
    case GraphicsCommand.resourceDetachBacking:
      guard request.has(8) else { return .invalidParameter }
      guard resources[request.word(0)]?.detach() != nil else { return .invalidResource }
      return .done
    default: return .unspecified
    }
  }

  // MARK: Monitors

  private var displayInfo: [UInt8] {
    var bytes: [UInt8] = []
    var left = 0
    for output in state.outputs {
      let fields = [left, 0, output.width, output.height, 1, 0]
      bytes += fields.flatMap { LittleEndian.bytes(UInt32(truncatingIfNeeded: $0)) }
      left += output.width
    }
    return bytes
      + Array(repeating: 0, count: (Self.describedOutputs - state.outputs.count) * 24)
  }

  private func edid(_ request: GraphicsRequest) -> GraphicsAnswer {
    guard let output = output(request.word(0)) else { return .invalidScanout }
    let block = EDID(
      preferred: .init(width: state.outputs[output].width, height: state.outputs[output].height)
    ).bytes
    return .edid(
      LittleEndian.bytes(UInt32(block.count)) + [0, 0, 0, 0] + block
        + Array(repeating: 0, count: 1024 - block.count))
  }

  private func output(_ number: UInt32) -> Int? {
    let index = Int(number)
    return state.outputs.indices.contains(index) ? index : nil
  }

  // MARK: Resources

  private func create(_ request: GraphicsRequest) -> GraphicsAnswer {
    let identifier = request.word(0)
    let sides = 1...UInt32(Self.maximumSide)
    guard identifier != 0, resources[identifier] == nil else { return .invalidResource }
    guard let format = GraphicsFormat(rawValue: request.word(4)), sides.contains(request.word(8)),
      sides.contains(request.word(12))
    else { return .invalidParameter }
    let (width, height) = (Int(request.word(8)), Int(request.word(12)))
    guard resources.count < Self.mostResources,
      let offset = memory.allocate(width * height * GraphicsResource.bytesPerPixel)
    else { return .outOfMemory }
    resources[identifier] = GraphicsResource(
      identifier: identifier, format: format, width: width, height: height, offset: offset)
    return .done
  }

  private func unreference(_ identifier: UInt32) -> GraphicsAnswer {
    guard let resource = resources.removeValue(forKey: identifier) else {
      return .invalidResource
    }
    for index in state.outputs.indices where state.outputs[index].resource == identifier {
      state.outputs[index].resource = 0
    }
    show()
    memory.free(resource.offset)
    return .done
  }

  private func attach(
    _ request: GraphicsRequest, _ chain: VirtqueueChain, _ transport: any VirtioTransport
  ) -> GraphicsAnswer {
    guard resources[request.word(0)] != nil else { return .invalidResource }
    let count = Int(request.word(4))
    let start = GraphicsCommand.headerSize + 8
    guard (1...Self.mostSegments).contains(count), chain.readableCount >= start + count * 16
    else { return .invalidParameter }
    guard let bytes = transport.read(chain, from: start, count: count * 16) else {
      return .unspecified
    }
    var segments: [VirtqueueChain.Segment] = []
    segments.reserveCapacity(count)
    for at in stride(from: 0, to: bytes.count, by: 16) {
      let segment = VirtqueueChain.Segment(
        address: LittleEndian.number(bytes, at: at, UInt64.self),
        count: LittleEndian.number(bytes, at: at + 8, UInt32.self))
      guard transport.memory.contains(segment.address, count: Int(segment.count)) else {
        return .invalidParameter
      }
      segments.append(segment)
    }
    resources[request.word(0)]?.attach(segments)
    return .done
  }

  private func transfer(_ request: GraphicsRequest, _ transport: any VirtioTransport)
    -> GraphicsAnswer
  {
    guard let resource = resources[request.word(24)] else { return .invalidResource }
    let rect = request.rect
    guard Self.isWithin(rect, resource.bounds) else { return .invalidParameter }
    copied += rect.width * rect.height * GraphicsResource.bytesPerPixel
    return resource.transfer(rect, from: request.long(16), transport.memory, to: memory)
      ? .done : .invalidParameter
  }

  private static func isWithin(_ rect: Rect, _ bounds: Rect) -> Bool {
    !rect.isEmpty && rect.x + rect.width <= bounds.width
      && rect.y + rect.height <= bounds.height
  }

  // MARK: Scanouts

  private func setScanout(_ request: GraphicsRequest) -> GraphicsAnswer {
    guard let index = output(request.word(16)) else { return .invalidScanout }
    let (rect, identifier) = (request.rect, request.word(20))
    if identifier != 0 {
      guard let resource = resources[identifier] else { return .invalidResource }
      guard Self.isWithin(rect, resource.bounds) else { return .invalidParameter }
      state.isActive = true
    }
    state.outputs[index].resource = identifier
    // What is switched off keeps its size, unless the driver names another.
    if identifier != 0 || Self.isSize(rect) { state.outputs[index].rect = rect }
    show()
    return .done
  }

  private static func isSize(_ rect: Rect) -> Bool {
    let sides = 1...maximumSide
    return sides.contains(rect.width) && sides.contains(rect.height)
  }

  private func show() {
    guard state.isActive else { return }
    let views = state.outputs.compactMap { output -> GraphicsScreen.View? in
      guard let resource = resources[output.resource], Self.isWithin(output.rect, resource.bounds)
      else { return nil }
      return GraphicsScreen.View(
        resource: output.resource, place: resource.place(x: output.rect.x, y: output.rect.y),
        stride: resource.stride, rect: output.rect)
    }
    let first = state.outputs.first
    let size = first.map { Self.isSize($0.rect) ? ($0.rect.width, $0.rect.height) : nil } ?? nil
    screen.show(views, blank: size ?? (first?.width ?? 640, first?.height ?? 480))
    onChange?()
  }

  private func flush(_ request: GraphicsRequest) -> GraphicsAnswer {
    guard let resource = resources[request.word(16)] else { return .invalidResource }
    guard Self.isWithin(request.rect, resource.bounds) else { return .invalidParameter }
    if screen.flush(resource.identifier, request.rect) { onChange?() }
    return .done
  }

  // MARK: Pointer

  /// struct virtio_gpu_update_cursor (section 5.7.6.10); such commands have no answer.
  /// Viewers draw the pointer where they have it, so moving it is nothing to do.
  private func point(_ chain: VirtqueueChain, _ transport: any VirtioTransport) -> Bool {
    guard let request = request(chain, transport) else { return false }
    if request.type == GraphicsCommand.updateCursor, request.has(28),
      let output = output(request.word(0))
    {
      state.outputs[output].cursor = cursor(request)
      tellCursor()
    }
    transport.complete(chain, written: 0, on: Self.cursorQueue)
    return true
  }

  private func cursor(_ request: GraphicsRequest) -> Cursor {
    guard let resource = resources[request.word(16)],
      resource.width <= Self.cursorSide, resource.height <= Self.cursorSide,
      let pixels = memory.bytes(resource.offset, count: resource.byteCount)
    else { return Cursor() }
    return Cursor(
      width: resource.width, height: resource.height,
      hotX: min(Int(request.word(20)), resource.width - 1),
      hotY: min(Int(request.word(24)), resource.height - 1), pixels: Array(pixels))
  }
}
