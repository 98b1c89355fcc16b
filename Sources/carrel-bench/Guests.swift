import Foundation

/// The ways of running the same ELF that are measured side by side.
enum Server: String, CaseIterable {
  /// One guest, one command: `carrel-vmm run --vnc`.
  case carrel
  /// A desktop of a pool, reached through carreld and shown by carrel-display.
  case site
  case qemu

  /// How a row of the report names it.
  var title: String {
    switch self {
    case .carrel: "carrel-vmm"
    case .site: "site"
    case .qemu: "QEMU"
    }
  }

  /// The command line for the demo desktop in `scene`, served at `port`.
  func command(_ settings: Settings, scene: String, port: Int) -> [String] {
    let file = "name=opt/carrel/scene,string=\(scene)"
    switch self {
    case .carrel, .site:
      return [
        settings.vmm, "run", "--memory", "256M", "--kernel", settings.elf, "--fw-cfg", file,
        "--vnc", "127.0.0.1:\(port)", "--serial", "stdio",
      ]
    case .qemu:
      return [
        "qemu-system-x86_64", "-machine", "pc,accel=kvm", "-m", "256", "-kernel", settings.elf,
        "-vga", "std", "-nodefaults", "-display", "none", "-serial", "stdio", "-fw_cfg", file,
        "-vnc", "127.0.0.1:\(port - 5900),lossy=on",
      ]
    }
  }

  /// Runs `body` with a viewer connected to a freshly started guest in `scene`.
  func withScene<Result>(
    _ scene: String, _ settings: Settings, encoding: VNCPeer.Encoding,
    _ body: (Subject, VNCPeer) throws -> Result
  ) throws -> Result {
    guard self != .site else {
      let site = try Site(settings, scene: scene)
      defer { site.stop() }
      let viewer = try site.connect(encoding)
      try Self.awaitScene(scene, viewer)
      return try body(site.daemon, viewer)
    }
    let port = try freePort()
    let subject = try Subject(name: rawValue, command(settings, scene: scene, port: port))
    defer { subject.stop() }
    try subject.awaitOutput(containing: settings.readyLine, seconds: 60)
    let viewer = try VNCPeer(host: "127.0.0.1", port: port, encoding: encoding)
    try Self.awaitScene(scene, viewer)
    return try body(subject, viewer)
  }

  static func awaitScene(_ scene: String, _ viewer: VNCPeer) throws {
    try viewer.pump(until: "the \(scene) scene at 1024x768") {
      viewer.updates > 0 && viewer.width == 1024 && viewer.height == 768
    }
  }
}

/// Where things are and how long to measure.
struct Settings {
  var programs = ".build/release"
  var elf = "build/demo-desktop/carrel-demo.elf"
  /// What the demo desktop writes to COM1 when its first frame is on the screen.
  var readyLine = "carrel: ready"
  var isQuick = false
  var rounds = 3
  var secondsPerRound = 5.0

  /// Ways that are measured in turns, because the host's load changes, get this many.
  var turns: Int { rounds * 5 }
  var secondsPerTurn: Double { secondsPerRound / 5 }

  var vmm: String { "\(programs)/carrel-vmm" }
}

/// A TCP port of 127.0.0.1 above 5900 that nothing listens on at present.
func freePort() throws -> Int {
  for port in 5950..<6100 {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(port).bigEndian
    address.sin_addr.s_addr = INADDR_LOOPBACK.bigEndian
    // SAFETY: bind reads sockaddr_in's own size from the address of a live local.
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    if bound == 0 { return port }
  }
  throw BenchError("no free port between 5950 and 6100")
}

extension Subject {
  /// Reads the process's standard output until it has held `text`; returns when. Throws
  /// when it held `failure` first.
  @discardableResult
  func awaitOutput(containing text: String, seconds: Double, failure: String? = nil) throws
    -> Double
  {
    let (start, deadline) = (Clock.seconds, Clock.seconds + seconds)
    let wanted = Array(text.utf8)
    if collected.firstRange(of: wanted) != nil { return start }
    while Clock.seconds < deadline {
      guard let now = try readOutput() else { continue }
      if collected.firstRange(of: wanted) != nil { return now }
      if let failure, collected.firstRange(of: Array(failure.utf8)) != nil {
        throw BenchError(
          "\(failure) after \(String(format: "%.1f", now - start)) s\(lastLines)")
      }
    }
    throw BenchError("\(name) did not write \"\(text)\" within \(Int(seconds)) s\(lastLines)")
  }

  /// What it wrote last, for a failure's text.
  private var lastLines: String {
    let printed = collected.suffix(4000).map { $0 == 0x0A || 0x20..<0x7F ~= $0 ? $0 : 0x20 }
    let lines = String(decoding: printed, as: UTF8.self).split(separator: "\n")
      .map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
    return lines.isEmpty
      ? "; it wrote nothing" : "; its last lines: " + lines.suffix(3).joined(separator: " | ")
  }

  /// Reads what the process wrote meanwhile, or will write next; returns when.
  func awaitMoreOutput(seconds: Double) throws -> Double {
    let deadline = Clock.seconds + seconds
    while Clock.seconds < deadline {
      if let now = try readOutput() { return now }
    }
    throw BenchError("\(name) wrote nothing for \(Int(seconds)) s")
  }

  /// `nil` when nothing came for a moment.
  private func readOutput() throws -> Double? {
    let descriptor = output.fileHandleForReading.fileDescriptor
    var poller = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard poll(&poller, 1, 200) > 0 else { return nil }
    var chunk = [UInt8](repeating: 0, count: 4096)
    let count = read(descriptor, &chunk, chunk.count)
    let now = Clock.seconds
    guard count > 0 else { throw BenchError("\(name) ended\(lastLines)", kind: .program) }
    collected += chunk[..<count]
    return now
  }
}
