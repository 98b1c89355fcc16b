import DeviceModel
import Display
import DisplayLink
import LinuxSystem
import TestSupport
import Testing

@Suite("Sound over the display link", .timeLimit(.minutes(4)))
struct SoundTests {
  private static func frames(_ first: Int, _ count: Int) -> [AudioFrame] {
    (first..<first + count).map {
      AudioFrame(left: Int16(truncatingIfNeeded: $0), right: Int16(truncatingIfNeeded: $0 >> 16))
    }
  }

  private static func heard(_ viewer: Viewer) -> [AudioFrame] {
    viewer.sounds.flatMap { event -> [AudioFrame] in
      if case .frames(let frames, _) = event { frames } else { [] }
    }
  }

  @Test("who listens hears all, from its beginning to its end, and others nothing")
  func played() throws {
    let (server, bytes) = try makeServer(nil)
    let machine = Machine()
    let listener = Viewer(try DisplayLinkClient(connected: server.connect()))
    let deaf = Viewer(try DisplayLinkClient(connected: server.connect()))
    listener.link.listen(sound: true, microphone: false)
    #expect(!server.wantsSound)
    #expect(try run(server, machine, [listener, deaf]) { server.wantsSound && deaf.attached == 1 })
    for start in stride(from: 0, to: 9600, by: 960) {
      server.publish(sound: Self.frames(start, 960), rate: 48000)
      listener.process()
    }
    server.publish(sound: [], rate: 48000)
    #expect(try run(server, machine, [listener, deaf]) { listener.sounds.last == .end })
    #expect(listener.sounds.first == .begin(rate: 48000))
    #expect(Self.heard(listener) == Self.frames(0, 9600))
    #expect(listener.sounds.filter { $0 == .begin(rate: 48000) || $0 == .end }.count == 2)
    #expect(deaf.sounds.isEmpty && deaf.detached == 0)
    withExtendedLifetime(bytes) {}
  }

  @Test("who does not want it any more is told of an end and gets nothing more")
  func stopped() throws {
    let (server, bytes) = try makeServer(nil)
    let machine = Machine()
    let viewer = Viewer(try DisplayLinkClient(connected: server.connect()))
    viewer.link.listen(sound: true, microphone: false)
    #expect(try run(server, machine, [viewer]) { server.wantsSound })
    server.publish(sound: Self.frames(0, 96), rate: 48000)
    #expect(try run(server, machine, [viewer]) { viewer.sounds.count == 2 })
    viewer.link.listen(sound: false, microphone: false)
    #expect(try run(server, machine, [viewer]) { !server.wantsSound })
    server.publish(sound: Self.frames(96, 96), rate: 48000)
    server.publish(name: "after that")
    #expect(try run(server, machine, [viewer]) { viewer.name == "after that" })
    #expect(
      viewer.sounds == [.begin(rate: 48000), .frames(Self.frames(0, 96), lost: 0), .end])
    withExtendedLifetime(bytes) {}
  }

  @Test("for a display that does not read, the oldest is left out and counted")
  func slow() throws {
    let (server, bytes) = try makeServer(nil)
    let machine = Machine()
    let viewer = Viewer(try DisplayLinkClient(connected: server.connect()))
    viewer.link.listen(sound: true, microphone: false)
    #expect(try run(server, machine, [viewer]) { server.wantsSound && viewer.attached == 1 })
    let stuck = try server.connect()
    for message in [
      DisplayLinkMessage.hello(version: 2, name: ""), .listen(sound: true, microphone: false),
    ] { try stuck.send(message.encoded()) }
    #expect(try run(server, machine, [viewer]) { server.displayCount == 2 })
    server.process(machine)
    // Ten seconds, of which the other one misses nothing.
    let total = 10 * 48000
    for start in stride(from: 0, to: total, by: 960) {
      server.publish(sound: Self.frames(start, 960), rate: 48000)
      server.process(machine)
      viewer.process()
    }
    server.publish(sound: [], rate: 48000)
    #expect(try run(server, machine, [viewer]) { viewer.sounds.last == .end })
    #expect(Self.heard(viewer) == Self.frames(0, total))

    var taken: [AudioFrame] = []
    var lost = 0
    var isOver = false
    while !isOver {
      server.process(machine)
      let packet = try stuck.receive(capacity: DisplayLinkMessage.maximumSize)
      guard case .audio(let event) = try DisplayLinkMessage(decoding: packet.bytes) else {
        continue
      }
      isOver = event == .end
      if case .frames(let frames, let missing) = event {
        taken += frames
        lost += Int(missing)
      }
    }
    #expect(taken.count + lost == total)
    #expect(taken.count < 3 * 48000 && taken.count >= DisplayLinkMessage.maximumWaitingFrames)
    // What waited is the newest.
    let newest = DisplayLinkMessage.maximumWaitingFrames
    #expect(taken.suffix(newest) == Self.frames(total - newest, newest)[...])
    withExtendedLifetime(bytes) {}
  }

  @Test("the guest hears one microphone, and displays that have one know when")
  func microphones() throws {
    let (server, bytes) = try makeServer(nil)
    let machine = Machine()
    let viewers = try (0..<3).map { _ in
      Viewer(try DisplayLinkClient(connected: server.connect()))
    }
    #expect(try run(server, machine, viewers) { viewers.allSatisfy { $0.attached == 1 } })
    viewers[1].link.listen(sound: false, microphone: true)
    viewers[2].link.listen(sound: false, microphone: true)
    #expect(
      try run(server, machine, viewers) {
        viewers[1].recordings == [false] && viewers[2].recordings == [false]
      })
    server.publish(recording: true)
    #expect(try run(server, machine, viewers) { viewers[1].recordings == [false, true] })
    for viewer in viewers.reversed() {
      viewer.link.send(.microphone(Self.frames(1, 480)))
      viewer.link.send(.clipboard("sent"))
    }
    #expect(try run(server, machine, viewers) { machine.clipboards.count == 3 })
    #expect(machine.recorded == Self.frames(1, 480))
    #expect(viewers[0].recordings.isEmpty)
    // The next one, when the first has none any more.
    viewers[1].link.listen(sound: false, microphone: false)
    viewers[1].link.send(.clipboard("sent"))
    #expect(try run(server, machine, viewers) { machine.clipboards.count == 4 })
    viewers[2].link.send(.microphone(Self.frames(481, 480)))
    #expect(try run(server, machine, viewers) { machine.recorded == Self.frames(1, 960) })
    withExtendedLifetime(bytes) {}
  }

  @Test("a microphone is heard no faster than one hears")
  func flood() throws {
    let (server, bytes) = try makeServer(nil)
    let machine = Machine()
    let viewer = Viewer(try DisplayLinkClient(connected: server.connect()))
    viewer.link.listen(sound: false, microphone: true)
    #expect(try run(server, machine, [viewer]) { viewer.recordings == [false] })
    let start = MonotonicClock.now
    for _ in 0..<200 {
      viewer.link.send(.microphone(Self.frames(0, 2400)))
      server.process(machine)
    }
    viewer.link.send(.clipboard("all"))
    #expect(try run(server, machine, [viewer]) { machine.clipboards == ["all"] })
    let milliseconds = Int((MonotonicClock.now - start) / 1_000_000)
    #expect(machine.recorded.count >= 24_000)
    #expect(machine.recorded.count <= 24_000 + (milliseconds + 1) * 60)
    withExtendedLifetime(bytes) {}
  }

  @Test(
    "a VMM that sends sound out of turn is left",
    arguments: [
      .audio(.frames([.silence], lost: 0)), .microphone([.silence]),
      .listen(sound: true, microphone: true),
    ] as [DisplayLinkMessage])
  func hostileMachine(message: DisplayLinkMessage) throws {
    let (vmm, display) = try UnixSocket.pair(kind: .packets)
    let viewer = Viewer(try DisplayLinkClient(connected: display))
    try vmm.send(DisplayLinkMessage.hello(version: 2, name: "").encoded())
    try vmm.send(message.encoded())
    #expect(try run(nil, Machine(), [viewer]) { viewer.detached == 1 })
    #expect(viewer.sounds.isEmpty)
  }

  // MARK: Versions

  @Test("a display of version 1 is served as before, and never sent sound")
  func olderDisplay() throws {
    let (server, bytes) = try makeServer(nil)
    let machine = Machine()
    let display = try server.connect()
    try display.send(DisplayLinkMessage.hello(version: 1, name: "").encoded())
    #expect(try run(server, machine, []) { server.displayCount == 1 })
    server.process(machine)
    let answer = try DisplayLinkMessage(decoding: try display.receive().bytes)
    #expect(answer == .hello(version: 1, name: "desk"))
    server.publish(sound: Self.frames(0, 96), rate: 48000)
    server.publish(recording: true)
    server.publish(name: "last")
    var seen: [DisplayLinkMessage] = []
    while seen.last != .name("last") {
      seen.append(try DisplayLinkMessage(decoding: try display.receive().bytes))
    }
    #expect(seen.allSatisfy { $0.firstVersion == 1 })
    // It may not say what its version lacks.
    try display.send(DisplayLinkMessage.listen(sound: true, microphone: false).encoded())
    #expect(try run(server, machine, []) { server.displayCount == 0 })
    withExtendedLifetime(bytes) {}
  }

  @Test("a VMM of version 1 is connected to again with that, and hears nothing of sound")
  func olderMachine() throws {
    let directory = try TemporaryDirectory()
    let path = directory.path("desk.display")
    let listener = try UnixListener(at: path, kind: .packets)
    let viewer = Viewer(try DisplayLinkClient(path: path))
    viewer.link.listen(sound: true, microphone: true)
    let first = try listener.accept()
    #expect(
      try DisplayLinkMessage(decoding: try first.receive().bytes) == .hello(version: 2, name: ""))
    let answer = DisplayLinkMessage.hello(version: 1, name: "old").encoded()
    try first.send(answer)
    first.shutDown()
    viewer.process()
    let second = try listener.accept()
    #expect(
      try DisplayLinkMessage(decoding: try second.receive().bytes) == .hello(version: 1, name: ""))
    try second.send(answer)
    viewer.process()
    #expect(viewer.attached == 1 && viewer.name == "old" && viewer.detached == 0)
    viewer.link.send(.microphone([.silence]))
    viewer.link.send(.key(KeyCode(0x1E), pressed: true))
    #expect(
      try DisplayLinkMessage(decoding: try second.receive().bytes)
        == .key(KeyCode(0x1E), pressed: true))
    // The next one may be newer.
    second.shutDown()
    viewer.process()
    #expect(viewer.detached == 1)
    let third = try listener.accept()
    #expect(
      try DisplayLinkMessage(decoding: try third.receive().bytes) == .hello(version: 2, name: ""))
    try third.send(DisplayLinkMessage.hello(version: 2, name: "new").encoded())
    viewer.process()
    #expect(
      try DisplayLinkMessage(decoding: try third.receive().bytes)
        == .listen(sound: true, microphone: true))
    withExtendedLifetime(directory) {}
  }
}
