import DeviceModel
import Display
import DisplayLink
import Glibc
import LinuxSystem

/// A VMM as far as a display sees one: shared memory with a picture, a display
/// link, and a record of what displays asked for.
final class FakeMachine: Sendable {
  let server: DisplayLinkServer
  let memory: MemoryMapping
  private let stop: EventDescriptor
  private let thread: Guarded<Thread?>
  private let record: Guarded<Record>

  struct Record {
    var inputs: [InputEvent] = []
    var sizes: [[Int]] = []
    var clipboards: [String] = []
    var powers: [DisplayLinkMessage.PowerRequest] = []
    var recorded: [AudioFrame] = []
  }

  private final class Handler: DisplayLinkHandler {
    let record: Guarded<Record>
    init(_ record: Guarded<Record>) { self.record = record }

    func displayLink(received event: InputEvent) {
      record.change { $0.inputs.append(event) }
    }
    func displayLink(wantsSize width: Int, height: Int) {
      record.change { $0.sizes.append([width, height]) }
    }
    func displayLink(clipboard text: String) { record.change { $0.clipboards.append(text) } }
    func displayLink(power request: DisplayLinkMessage.PowerRequest) {
      record.change { $0.powers.append(request) }
    }
    func displayLink(recorded frames: [AudioFrame]) {
      record.change { $0.recorded += frames }
    }
  }

  init(path: String? = nil, name: String = "test desk", size: Int = 16 << 20) throws {
    let shared = try SharedMemory(name: "vram", size: size)
    memory = try shared.map()
    let server = try DisplayLinkServer(
      path: path, name: name, memories: [.videoMemory: shared])
    let stop = try EventDescriptor()
    let record = Guarded(Record())
    let poller = try Poller()
    try poller.add(server.descriptor, token: 0)
    try poller.add(stop.descriptor, token: 1)
    (self.server, self.stop, self.record) = (server, stop, record)
    thread = Guarded(
      try Thread(name: "fake machine") {
        let handler = Handler(record)
        while let events = try? poller.wait(), !events.contains(where: { $0.token == 1 }) {
          server.process(handler)
        }
      })
  }

  deinit {
    stop.signal()
    thread.withLock { $0?.join() }
  }

  /// What displays asked for so far.
  var received: Record { record.withLock { $0 } }

  /// Waits until `condition` holds of what was received (20 s at most).
  func wait(until condition: @escaping (Record) -> Bool) -> Bool {
    let deadline = MonotonicClock.now + 20_000_000_000
    while !condition(received) {
      guard MonotonicClock.now < deadline else { return false }
      pause(milliseconds: 2)
    }
    return true
  }

  // MARK: The picture

  /// Writes one pixel of a 32-bit picture.
  func set(_ scanout: Scanout, x: Int, y: Int, _ value: UInt32) {
    memory.bytes.storeBytes(
      of: value, toByteOffset: scanout.offset + y * scanout.stride + x * 4, as: UInt32.self)
  }

  func pixel(_ scanout: Scanout, x: Int, y: Int) -> UInt32 {
    memory.bytes.load(
      fromByteOffset: scanout.offset + y * scanout.stride + x * 4, as: UInt32.self)
  }

  /// Fills a rectangle and publishes it as damage.
  func fill(_ scanout: Scanout, _ rect: Rect, _ value: UInt32) {
    for y in rect.y..<(rect.y + rect.height) {
      for x in rect.x..<(rect.x + rect.width) { set(scanout, x: x, y: y, value) }
    }
    server.publish(damage: Region(rect))
  }

  /// Paints something with edges, gradients and noise all over.
  func paint(_ scanout: Scanout, seed: UInt32 = 0) {
    var noise = seed &* 2_654_435_761 | 1
    for y in 0..<scanout.height {
      for x in 0..<scanout.width {
        noise = noise &* 1_664_525 &+ 1_013_904_223
        let value: UInt32 =
          switch (x / 64 + y / 48 + Int(seed % 7)) % 4 {
          case 0: UInt32(x * 255 / scanout.width) << 16 | UInt32(y * 255 / scanout.height) << 8
          case 1: noise >> 8
          case 2: (x / 3 + y / 5) % 2 == 0 ? 0x203040 : 0xF0E0D0
          default: 0x3366CC &+ seed
          }
        set(scanout, x: x, y: y, value & 0xFFFFFF)
      }
    }
    server.publish(damage: Region(Rect(x: 0, y: 0, width: scanout.width, height: scanout.height)))
  }
}

func scanout(_ width: Int, _ height: Int) -> Scanout {
  Scanout(
    source: .videoMemory, offset: 0, stride: width * 4, width: width, height: height,
    format: .xrgb8888)
}

/// Lets time pass: for pacing, and between looks at what tells nobody of changes.
func pause(milliseconds: Int32) {
  _ = poll(nil, 0, milliseconds)
}
