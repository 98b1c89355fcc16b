import DeviceModel
import Display
import DisplayLink
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// Collects what displays ask for.
final class Machine: DisplayLinkHandler {
  var inputs: [InputEvent] = []
  var sizes: [[Int]] = []
  var clipboards: [String] = []
  var powers: [DisplayLinkMessage.PowerRequest] = []
  var recorded: [AudioFrame] = []

  func displayLink(received event: InputEvent) { inputs.append(event) }
  func displayLink(wantsSize width: Int, height: Int) { sizes.append([width, height]) }
  func displayLink(clipboard text: String) { clipboards.append(text) }
  func displayLink(power request: DisplayLinkMessage.PowerRequest) { powers.append(request) }
  func displayLink(recorded frames: [AudioFrame]) { recorded += frames }
}

/// What one display has seen.
final class Viewer {
  let link: DisplayLinkClient
  var surface: DisplaySurface?
  var surfaces = 0
  var damage = Region()
  var packets = 0
  var attached = 0
  var detached = 0
  var name = ""
  var leds: KeyboardLEDs?
  var cursor: CursorImage?
  var bells = 0
  var sounds: [DisplayLinkMessage.SoundEvent] = []
  var recordings: [Bool] = []

  init(_ link: DisplayLinkClient) { self.link = link }

  func process() {
    for event in link.process() {
      switch event {
      case .attached(let name): (attached, self.name) = (attached + 1, name)
      case .detached: detached += 1
      case .surface(let surface): (self.surface, surfaces) = (surface, surfaces + 1)
      case .damage(let region):
        damage.formUnion(region)
        packets += 1
      case .cursor(let image): cursor = image
      case .leds(let leds): self.leds = leds
      case .bell: bells += 1
      case .name(let name): self.name = name
      case .sound(let event): sounds.append(event)
      case .recording(let isRecording): recordings.append(isRecording)
      }
    }
  }
}

/// Runs servers and viewers on this thread until `condition` holds (5 s at most).
func run(
  _ server: DisplayLinkServer?, _ machine: Machine, _ viewers: [Viewer],
  until condition: () -> Bool
) throws -> Bool {
  let poller = try Poller()
  if let server { try poller.add(server.descriptor, token: 0) }
  for viewer in viewers { try poller.add(viewer.link.descriptor, token: 1) }
  let deadline = MonotonicClock.now + 5_000_000_000
  while !condition() {
    guard MonotonicClock.now < deadline else { return false }
    _ = try poller.wait(milliseconds: 100)
    server?.process(machine)
    for viewer in viewers { viewer.process() }
  }
  return true
}

private let small = Scanout(
  source: .videoMemory, offset: 64, stride: 256, width: 64, height: 8, format: .xrgb8888)

func makeServer(_ path: String?) throws -> (DisplayLinkServer, MemoryMapping) {
  let memory = try SharedMemory(name: "vram", size: 65536)
  let server = try DisplayLinkServer(
    path: path, name: "desk", memories: [.videoMemory: memory])
  return (server, try memory.map())
}

@Suite("The display link", .timeLimit(.minutes(4)))
struct DisplayLinkTests {
  @Test("a display sees the VMM's memory, state and damage")
  func picture() throws {
    let (server, bytes) = try makeServer(nil)
    let machine = Machine()
    server.publish(small)
    server.publish(leds: .numLock)
    let viewer = Viewer(try DisplayLinkClient(connected: server.connect()))
    #expect(try run(server, machine, [viewer]) { viewer.cursor != nil && viewer.leds != nil })
    #expect(viewer.name == "desk")
    #expect(viewer.leds == .numLock)
    #expect(viewer.cursor == .hidden)
    let surface = try #require(viewer.surface)
    #expect(surface.scanout == small)
    bytes.bytes[64] = 0xAB
    #expect(surface.bytes[0] == 0xAB)
    #expect(surface.bytes.count == 7 * 256 + 64 * 4)

    #expect(!server.wantsDamage)
    viewer.link.requestDamage()
    #expect(try run(server, machine, [viewer]) { server.wantsDamage })
    server.publish(damage: Region(Rect(x: 1, y: 1, width: 2, height: 2)))
    #expect(!server.wantsDamage)
    #expect(try run(server, machine, [viewer]) { !viewer.damage.isEmpty })
    #expect(viewer.damage == Region(Rect(x: 1, y: 1, width: 2, height: 2)))
  }

  @Test("damage that nobody asked for is merged into one packet")
  func pacing() throws {
    let (server, bytes) = try makeServer(nil)
    let machine = Machine()
    server.publish(small)
    let viewer = Viewer(try DisplayLinkClient(connected: server.connect()))
    #expect(try run(server, machine, [viewer]) { viewer.cursor != nil })
    for x in 0..<60 { server.publish(damage: Region(Rect(x: x, y: 0, width: 1, height: 1))) }
    viewer.link.requestDamage()
    #expect(try run(server, machine, [viewer]) { viewer.packets > 0 })
    #expect(viewer.packets == 1)
    #expect(viewer.damage == Region(Rect(x: 0, y: 0, width: 60, height: 1)))
    withExtendedLifetime(bytes) {}
  }

  @Test("a mode change reaches a display that asks for nothing")
  func modeChange() throws {
    let (server, bytes) = try makeServer(nil)
    let machine = Machine()
    server.publish(small)
    let viewer = Viewer(try DisplayLinkClient(connected: server.connect()))
    #expect(try run(server, machine, [viewer]) { viewer.surfaces == 1 })
    server.publish(damage: Region(Rect(x: 0, y: 0, width: 64, height: 8)))
    var larger = small
    larger.height = 100
    server.publish(larger)
    #expect(try run(server, machine, [viewer]) { viewer.surfaces == 2 })
    #expect(viewer.surface?.scanout == larger)
    // Old damage means nothing in the new picture.
    viewer.link.requestDamage()
    #expect(try run(server, machine, [viewer]) { server.wantsDamage })
    #expect(viewer.packets == 0)
    withExtendedLifetime(bytes) {}
  }

  @Test("input, sizes, clipboards and power requests reach the machine in order")
  func input() throws {
    let (server, bytes) = try makeServer(nil)
    let machine = Machine()
    let viewer = Viewer(try DisplayLinkClient(connected: server.connect()))
    #expect(try run(server, machine, [viewer]) { viewer.attached == 1 })
    let send = viewer.link.sender
    send(.key(KeyCode(0x1E), pressed: true))
    send(.pointer(x: 1, y: 2, buttons: .left, wheel: 0, horizontalWheel: 0))
    send(.pointer(x: 1, y: 2, buttons: .left, wheel: -1, horizontalWheel: 0))
    send(.resize(width: 800, height: 600))
    send(.clipboard("text"))
    send(.power(.shutdown))
    send(.key(KeyCode(0x1E), pressed: false))
    #expect(try run(server, machine, [viewer]) { machine.inputs.count == 4 })
    #expect(
      machine.inputs == [
        .key(KeyCode(0x1E), pressed: true),
        .absolutePointer(x: 1, y: 2, buttons: .left),
        .relativePointer(x: 0, y: 0, wheel: -1, horizontalWheel: 0, buttons: .left),
        .key(KeyCode(0x1E), pressed: false),
      ])
    #expect(machine.sizes == [[800, 600]])
    #expect(machine.clipboards == ["text"])
    #expect(machine.powers == [.shutdown])
    withExtendedLifetime(bytes) {}
  }

  @Test("keys and buttons that a vanished display held are released")
  func release() throws {
    let (server, bytes) = try makeServer(nil)
    let machine = Machine()
    var viewers = [Viewer(try DisplayLinkClient(connected: server.connect()))]
    #expect(try run(server, machine, viewers) { viewers[0].attached == 1 })
    viewers[0].link.send(.key(KeyCode(0x2A), pressed: true))
    viewers[0].link.send(.pointer(x: 9, y: 9, buttons: .right, wheel: 0, horizontalWheel: 0))
    #expect(try run(server, machine, viewers) { machine.inputs.count == 2 })
    viewers = []
    #expect(try run(server, machine, []) { server.displayCount == 0 })
    #expect(
      machine.inputs.suffix(2) == [
        .key(KeyCode(0x2A), pressed: false), .absolutePointer(x: 9, y: 9, buttons: []),
      ])
    withExtendedLifetime(bytes) {}
  }

  @Test("a display that does not read costs the VMM nothing and harms no other")
  func slowDisplay() throws {
    let (server, bytes) = try makeServer(nil)
    let machine = Machine()
    server.publish(small)
    let stuck = try server.connect()
    try stuck.send(DisplayLinkMessage.hello(version: 1, name: "").encoded())
    let viewer = Viewer(try DisplayLinkClient(connected: server.connect()))
    #expect(try run(server, machine, [viewer]) { viewer.cursor != nil })
    for round in 0..<5000 {
      server.publish(small)
      server.publish(name: "desk \(round)")
    }
    #expect(try run(server, machine, [viewer]) { viewer.name == "desk 4999" })
    #expect(server.displayCount == 2)
    withExtendedLifetime((bytes, stuck)) {}
  }

  @Test(
    "a display that breaks the rules is disconnected",
    arguments: [
      [0xFF], [], DisplayLinkMessage.pace(sequence: 0).encoded(),
      DisplayLinkMessage.hello(version: 99, name: "").encoded(),
    ] as [[UInt8]])
  func hostileDisplay(packet: [UInt8]) throws {
    try expectDisconnection(packet)
  }

  @Test("a display that sends an oversized packet is disconnected")
  func oversizedPacket() throws {
    try expectDisconnection([UInt8](repeating: 1, count: 100_000))
  }

  private func expectDisconnection(_ packet: [UInt8]) throws {
    let (server, bytes) = try makeServer(nil)
    let machine = Machine()
    let good = Viewer(try DisplayLinkClient(connected: server.connect()))
    #expect(try run(server, machine, [good]) { good.attached == 1 })
    let bad = try server.connect()
    #expect(try run(server, machine, [good]) { server.displayCount == 2 })
    try bad.send(packet)
    #expect(try run(server, machine, [good]) { server.displayCount == 1 })
    #expect(good.detached == 0)
    withExtendedLifetime(bytes) {}
  }

  @Test("a surface outside its memory ends the connection")
  func surfaceOutsideMemory() throws {
    let (server, bytes) = try makeServer(nil)
    let machine = Machine()
    var scanout = small
    scanout.offset = 65536 - 100
    server.publish(scanout)
    let viewer = Viewer(try DisplayLinkClient(connected: server.connect()))
    #expect(try run(server, machine, [viewer]) { viewer.detached == 1 })
    #expect(viewer.surfaces == 0)
    withExtendedLifetime(bytes) {}
  }

  @Test("memory that may shrink under its reader ends the connection")
  func unsealedMemory() throws {
    let temporary = try TemporaryDirectory()
    defer { withExtendedLifetime(temporary) {} }
    let directory = temporary.path
    let (vmm, display) = try UnixSocket.pair(kind: .packets)
    let viewer = Viewer(try DisplayLinkClient(connected: display))
    let file = try FileDescriptor.open("\(directory)/memory", [.writable, .create])
    try file.setSize(65536)
    let hello = DisplayLinkMessage.hello(version: DisplayLinkMessage.version, name: "")
    try vmm.send(hello.encoded())
    try vmm.send(DisplayLinkMessage.surface(small).encoded(), descriptors: [file])
    #expect(try run(nil, Machine(), [viewer]) { viewer.detached == 1 })
    #expect(viewer.surfaces == 0)
  }

  @Test("a display attaches when the VMM appears, and again after it was replaced")
  func reconnection() throws {
    let temporary = try TemporaryDirectory()
    defer { withExtendedLifetime(temporary) {} }
    let directory = temporary.path
    let path = "\(directory)/deep/desk.display"
    let machine = Machine()
    let viewer = Viewer(try DisplayLinkClient(path: path))
    viewer.process()
    #expect(viewer.attached == 0)
    try Files.makeDirectory("\(directory)/deep")
    for round in 1...3 {
      let (server, bytes) = try makeServer(path)
      server.publish(small)
      #expect(try run(server, machine, [viewer]) { viewer.surfaces == round })
      #expect(viewer.attached == round)
      bytes.bytes[64] = UInt8(round)
      #expect(viewer.surface?.bytes[0] == UInt8(round))
    }
    #expect(try run(nil, machine, [viewer]) { viewer.detached == 3 })
    // The last picture can still be looked at.
    #expect(viewer.surface?.bytes[0] == 3)
  }
}
