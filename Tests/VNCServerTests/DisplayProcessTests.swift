import DeviceModel
import Glibc
import LinuxSystem
import TestSupport
import Testing
import VNCServer

/// carrel-display as carreld starts it.
private struct DisplayProcess {
  let viewer: TestViewer
  let control: UnixSocket
  let process: ChildProcess

  init(_ options: [String] = []) throws {
    let (client, clientEnd) = try UnixSocket.pair(kind: .stream)
    let (control, controlEnd) = try UnixSocket.pair(kind: .packets)
    var request = ChildProcess.Request(
      Programs.built("carrel-display"), ["--client-fd", "3", "--control-fd", "4"] + options)
    request.descriptors = [3: clientEnd.descriptor, 4: controlEnd.descriptor]
    process = try ChildProcess(request)
    viewer = TestViewer(client.descriptor)
    self.control = control
  }

  func tell(_ message: String) throws {
    try control.send(Array(message.utf8))
  }

  /// The next thing that the process says (10 s at most).
  func hear() throws -> String {
    var watched = pollfd(fd: control.descriptor.raw, events: Int16(POLLIN), revents: 0)
    guard poll(&watched, 1, 10_000) == 1 else { throw TestViewer.Failure(description: "silence") }
    return String(decoding: try control.receive().bytes, as: UTF8.self)
  }

  /// A field of /proc/PID/smaps_rollup in bytes.
  func memory(_ field: String) throws -> Int {
    let path = "/proc/\(process.handle.identifier)/smaps_rollup"
    let lines = String(decoding: try Files.read(path), as: UTF8.self).split(separator: "\n")
    let line = try #require(lines.first { $0.hasPrefix("\(field):") })
    return Int(line.split(separator: " ").dropFirst().first ?? "").map { $0 * 1024 } ?? .max
  }
}

@Suite("carrel-display", .timeLimit(.minutes(4)), .serialized)
struct DisplayProcessTests {
  @Test("shows the desktop it is told to, and keeps the viewer when its VMM is replaced")
  func life() throws {
    let directory = try TemporaryDirectory()
    let path = directory.path("desk.display")
    let display = try DisplayProcess(["--keyboard-layout", "de", "--name", "Ada's desk"])
    try display.tell("status 40 Preparing your desktop")
    try display.tell("attach \(path)")
    let viewer = display.viewer
    try viewer.handshake()
    #expect(viewer.name == "Ada's desk")
    try viewer.setEncodings([0, -223, -309])
    _ = try viewer.next { $0 == .xvp(code: 1) }
    try viewer.request(incremental: false)
    _ = try viewer.next { if case .update = $0 { true } else { false } }
    #expect(Set(viewer.pixels).count > 20)
    let size = scanout(320, 200)
    for round in 1...2 {
      let machine = try FakeMachine(path: path)
      machine.fill(size, Rect(x: 0, y: 0, width: 320, height: 200), 0x2211 * UInt32(round))
      machine.server.publish(size)
      try viewer.update { viewer.width == 320 && viewer.pixel(9, 9) == 0x2211 * UInt32(round) }
      if round == 2 { #expect(try display.hear() == "waiting") }
      #expect(try display.hear() == "attached")
      // Z is where Y is on an American keyboard.
      try viewer.key(0x7A, true)
      #expect(machine.wait { $0.inputs.contains(.key(KeyCode(0x15), pressed: true)) })
      try viewer.key(0x7A, false)
      try viewer.send([250, 0, 1, 3])
      #expect(try display.hear() == "power reboot")
      if round == 1 { continue }
      try display.tell("end Good bye")
      try viewer.update { viewer.pixel(9, 9) != 0x4422 }
      // It stands for two seconds at least, whatever is pressed.
      #expect(!viewer.isClosed(within: 2500))
      try viewer.key(0x7A, true)
    }
    #expect(try display.hear() == "closed Good bye")
    #expect(try display.process.wait() == .exited(0))
  }

  @Test("reads keys by the layout that it is told before its desktop, and by the next at once")
  func layout() throws {
    let directory = try TemporaryDirectory()
    let machine = try FakeMachine(path: directory.path("desk.display"))
    machine.server.publish(scanout(320, 200))
    let display = try DisplayProcess()
    try display.tell("layout de")
    try display.tell("attach \(directory.path("desk.display"))")
    try display.viewer.handshake()
    #expect(try display.hear() == "attached")
    try display.viewer.key(0x7A, true)
    #expect(machine.wait { $0.inputs == [.key(KeyCode(0x15), pressed: true)] })
    try display.tell("layout fr")
    // What is held is let go of.
    #expect(machine.wait { $0.inputs.last == .key(KeyCode(0x15), pressed: false) })
    try display.viewer.key(0x7A, true)
    #expect(machine.wait { $0.inputs.last == .key(KeyCode(0x11), pressed: true) })
  }

  @Test("hands the sound of its desktop on to a viewer that wants it")
  func sound() throws {
    let directory = try TemporaryDirectory()
    let machine = try FakeMachine(path: directory.path("desk.display"))
    machine.server.publish(scanout(320, 200))
    let display = try DisplayProcess()
    try display.tell("attach \(directory.path("desk.display"))")
    let viewer = SoundViewer(display.viewer.descriptor)
    try viewer.connect()
    try viewer.setFormat(3, channels: 1, rate: 48000)
    try viewer.enable()
    #expect(machine.wait { _ in machine.server.wantsSound })
    machine.server.publish(
      sound: [AudioFrame(left: 0x102, right: 0x302), .silence], rate: 48000)
    machine.server.publish(sound: [], rate: 48000)
    #expect(try viewer.stream() == [2, 2, 0, 0])
  }

  @Test("ends with the viewer, and with carreld", arguments: [true, false])
  func ends(viewerLeaves: Bool) throws {
    let display = try DisplayProcess()
    try display.viewer.handshake()
    let socket = viewerLeaves ? display.viewer.descriptor : display.control.descriptor
    shutdown(socket.raw, Int32(SHUT_RDWR))
    if viewerLeaves { #expect(try display.hear() == "closed the viewer disconnected") }
    #expect(try display.process.wait() == .exited(0))
  }

  @Test("refuses descriptors that are no sockets, and unknown layouts")
  func refusals() throws {
    let directory = try TemporaryDirectory()
    let program = Programs.built("carrel-display")
    let (status, output) = try directory.run("\(program) --client-fd 77 --control-fd 0 </dev/null")
    #expect(status == 64)
    #expect(output.contains("--client-fd 77 is not an open socket"))
    let (layoutStatus, layoutOutput) = try directory.run(
      "\(program) --client-fd 0 --control-fd 0 --keyboard-layout xx </dev/null")
    #expect(layoutStatus == 64)
    #expect(layoutOutput.contains("en-us"))
  }

  @Test("needs at most 16 MiB beyond the shared surface and one comparison frame")
  func memory() throws {
    let size = scanout(1024, 768)
    let directory = try TemporaryDirectory()
    let path = directory.path("desk.display")
    let machine = try FakeMachine(path: path)
    machine.paint(size)
    machine.server.publish(size)
    let display = try DisplayProcess()
    try display.tell("attach \(path)")
    try display.viewer.handshake()
    try display.viewer.setEncodings([5, 1, -223])
    try display.viewer.request(incremental: false)
    _ = try display.viewer.next { if case .update = $0 { true } else { false } }
    let own = try display.memory("Pss") - display.memory("Pss_Shmem") - 1024 * 768 * 4
    #expect(own <= 16 << 20, "\(own) bytes")
  }
}
