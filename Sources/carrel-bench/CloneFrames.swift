import Foundation
import LinuxSystem

/// How long a viewer that looks at a status screen waits for the whole picture of a clone of
/// the demo desktop, from the request on: the clone, its display, and the picture's way. A
/// viewer of QEMU's can only look at that of a QEMU that was started before, and which waits
/// for word to go on from the template file.
func measureCloneFrames(_ settings: Settings, _ place: CloneDirectory) throws -> [Comparison] {
  let machine = [
    "--memory", "512M", "--kernel", settings.elf, "--append", "scene=flip", "--net", "none",
  ]
  let port = try freePort()
  var picture = ScreenSample()
  let template = try TemplateProcess(
    settings, in: place, of: machine, ["--serial", "stdio", "--vnc", "127.0.0.1:\(port)"]
  ) { original in
    try original.awaitLine(settings.readyLine)
    let viewer = try VNCPeer(host: "127.0.0.1", port: port, encoding: .raw)
    try Server.awaitScene("flip", viewer)
    try idle(viewer, seconds: 1)
    picture = ScreenSample(viewer)
  }
  defer { template.stop() }
  let qemu = qemuDesktop(settings, place)
  var results: [Comparison] = []
  for encoding in VNCPeer.Encoding.allCases {
    var times = Samples()
    for turn in 0..<(settings.isQuick ? 40 : 200) {
      let viewer = try WaitingViewer(settings, place, encoding)
      let link = place.path("link-\(encoding)-\(turn)")
      let clone = try template.clone("frame-\(turn)", displayLink: link)
      try clone.awaitAnswer()
      try viewer.attach(link) { picture.resembles($0) }
      times.add((Clock.seconds - clone.asked) * 1000)
      try clone.stop()
      viewer.stop()
      try template.settle()
    }
    let peer = qemu.peer.measure { try qemuFrames($0, place, encoding, qemu.picture, settings) }
    let name = "clone, from request to its picture at a viewer, \(encoding.rawValue)"
    results += [
      Comparison("\(name), p50", unit: "ms", ours: times.median, bound: 16.7),
      Comparison("  p99", unit: "ms", ours: times.quantile(0.99), bound: 33),
      Comparison(
        "  p50 beside QEMU's", unit: "ms", ours: times.median, qemu: peer.map(\.median), bound: 1,
        note: "QEMU and its viewer's connection stood ready before the request"),
      Comparison(
        "  p99 beside QEMU's", unit: "ms", ours: times.quantile(0.99),
        qemu: peer.map { $0.quantile(0.99) }, bound: 1),
    ]
  }
  return results
}

/// The demo desktop as QEMU saved it, and what it shows.
private func qemuDesktop(
  _ settings: Settings, _ place: CloneDirectory
) -> (peer: QEMUPeer, picture: ScreenSample) {
  var picture = ScreenSample()
  let vnc = place.path("qemu.vnc")
  let machine = ["-kernel", settings.elf, "-fw_cfg", "name=opt/carrel/scene,string=flip"]
  let peer = QEMUPeer(place) {
    try QEMUTemplate(place, "desktop", of: machine, ["-vnc", "unix:\(vnc),lossy=on"]) { original in
      try original.awaitLine(settings.readyLine)
      let viewer = try VNCPeer(host: vnc, port: 0, encoding: .raw)
      try Server.awaitScene("flip", viewer)
      try idle(viewer, seconds: 1)
      picture = ScreenSample(viewer)
    }
  }
  return (peer, picture)
}

/// Milliseconds from the word to go on to the whole picture.
private func qemuFrames(
  _ template: QEMUTemplate, _ place: CloneDirectory, _ encoding: VNCPeer.Encoding,
  _ picture: ScreenSample, _ settings: Settings
) throws -> Samples {
  var times = Samples()
  let vnc = place.path("qemu.vnc")
  for _ in 0..<(settings.isQuick ? 6 : 50) {
    let clone = try template.waitingClone(vnc: vnc)
    let viewer = try VNCPeer(host: vnc, port: 0, encoding: encoding)
    try viewer.understandPlainSizesOnly()
    try idle(viewer, seconds: 0.1)
    try viewer.pump(until: "QEMU's picture of no guest") { viewer.updates > 0 }
    try clone.goOnNow()
    try viewer.pump(until: "the picture of QEMU's guest") { picture.resembles(viewer) }
    times.add((Clock.seconds - clone.asked) * 1000)
  }
  return times
}

/// Some pixels of a picture from all over it, to know it again by.
private struct ScreenSample {
  private var pixels: [UInt32] = []
  private var size = (width: 0, height: 0)

  init() {}

  init(_ viewer: VNCPeer) {
    size = (viewer.width, viewer.height)
    pixels = Self.places(size).map { viewer.pixel($0.x, $0.y) }
  }

  private static func places(_ size: (width: Int, height: Int)) -> [(x: Int, y: Int)] {
    (0..<32).flatMap { row in
      (0..<32).map { column in
        (column * (size.width - 1) / 31, row * (size.height - 1) / 31)
      }
    }
  }

  /// Whether the viewer has that picture, but for what a lossy encoding changes.
  func resembles(_ viewer: VNCPeer) -> Bool {
    size == (viewer.width, viewer.height)
      && zip(Self.places(size), pixels).allSatisfy { place, pixel in
        !differs(viewer.pixel(place.x, place.y), pixel)
      }
  }
}

/// A viewer whose display process has nothing to show it yet but that it is to wait.
private final class WaitingViewer {
  private let viewer: VNCPeer
  private let control: UnixSocket
  private let process: Guarded<ChildProcess?>

  init(
    _ settings: Settings, _ place: CloneDirectory, _ encoding: VNCPeer.Encoding
  ) throws {
    let path = place.path("viewer")
    let listener = try UnixListener(at: path, kind: .stream)
    let (ours, theirs) = try UnixSocket.pair(kind: .packets)
    let process = Guarded<ChildProcess?>(nil)
    let program = "\(settings.programs)/carrel-display"
    // libvncclient connects and speaks in one.
    let server = try LinuxSystem.Thread(name: "accept") {
      guard let client = try? listener.accept() else { return }
      var request = ChildProcess.Request(program, ["--client-fd", "3", "--control-fd", "4"])
      request.descriptors = [3: client.descriptor, 4: theirs.descriptor]
      let display = try? ChildProcess(request)
      process.change { $0 = display }
    }
    viewer = try VNCPeer(host: path, port: 0, encoding: encoding)
    server.join()
    (control, self.process) = (ours, process)
    try control.send(Array("status 50 One moment".utf8))
    try idle(viewer, seconds: 0.1)
    try viewer.pump(until: "a status screen") { viewer.updates > 0 }
  }

  func attach(_ link: String, until isThere: (VNCPeer) -> Bool) throws {
    try control.send(Array("attach \(link)".utf8))
    try viewer.pump(until: "the clone's picture") { isThere(viewer) }
  }

  func stop() {
    let process = process.withLock { $0 }
    try? process?.handle.send(.kill)
    _ = try? process?.wait()
  }
}
