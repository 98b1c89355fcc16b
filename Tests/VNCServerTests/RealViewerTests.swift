import DeviceModel
import Display
import Glibc
import LinuxSystem
import TestSupport
import Testing
import VNCServer

private func waitUntil(_ seconds: UInt64 = 20, _ condition: () throws -> Bool) rethrows -> Bool {
  let deadline = MonotonicClock.now + seconds * 1_000_000_000
  while try !condition() {
    guard MonotonicClock.now < deadline else { return false }
    pause(milliseconds: 100)
  }
  return true
}

@Suite("Stock viewers", .timeLimit(.minutes(6)), .serialized)
struct RealViewerTests {
  private func listener(_ machine: FakeMachine) throws -> ViewerListener {
    let server = machine.server
    return try ViewerListener(at: "127.0.0.1:0", configuration: ViewerConfiguration()) {
      try server.connect()
    }
  }

  @Test(
    "TigerVNC shows the picture, types every key and follows a mode change",
    .needs("vncviewer", "Xvfb", "xdotool", "import"))
  func tigerVNC() throws {
    let machine = try FakeMachine()
    let size = scanout(800, 600)
    machine.fill(size, Rect(x: 0, y: 0, width: 800, height: 600), 0x336699)
    machine.fill(size, Rect(x: 400, y: 0, width: 400, height: 600), 0xCC8844)
    machine.server.publish(size)
    let listener = try listener(machine)
    defer { listener.close() }
    let screen = try VirtualScreen()
    let viewer = try screen.start("vncviewer", ["-MenuKey=", "127.0.0.1::\(listener.port)"])
    defer {
      try? viewer.handle.send(.terminate)
      _ = try? viewer.wait()
    }
    let directory = try TemporaryDirectory()
    #expect(
      try waitUntil {
        let colours = try photograph(screen, directory)
        return (colours[0x336699] ?? 0) > 100_000 && (colours[0xCC8844] ?? 0) > 100_000
      })
    // Every key that xdotool names by its X key code, as the keyboard has them.
    let keys =
      (10...21).map { $0 } + Array(24...35) + Array(38...48) + Array(51...61) + [65, 22, 36]
    let focus = [
      "search", "--sync", "--onlyvisible", "--name", "TigerVNC", "windowfocus", "--sync",
    ]
    _ = try screen.start("xdotool", focus).wait()
    _ = try screen.start("xdotool", ["key", "--delay", "30"] + keys.map(String.init)).wait()
    let wanted = keys.map { KeyCode(UInt16($0 - 8)) }
    #expect(
      waitUntil {
        let pressed = machine.received.inputs.compactMap { event -> KeyCode? in
          if case .key(let code, pressed: true) = event { code } else { nil }
        }
        return pressed == wanted
      })
    let larger = scanout(1000, 700)
    machine.fill(larger, Rect(x: 0, y: 0, width: 1000, height: 700), 0x115511)
    machine.server.publish(larger)
    #expect(try waitUntil { (try photograph(screen, directory)[0x115511] ?? 0) > 500_000 })
  }

  /// How many pixels of the virtual screen have each colour.
  private func photograph(_ screen: VirtualScreen, _ directory: TemporaryDirectory) throws
    -> [UInt32: Int]
  {
    let file = directory.path("screen.ppm")
    _ = try screen.start("import", ["-window", "root", "-depth", "8", "ppm:\(file)"]).wait()
    let bytes = (try? directory.read("screen.ppm")) ?? []
    guard bytes.count > 3 * 1280 * 1024 else { return [:] }
    let pixels = bytes.suffix(3 * 1280 * 1024)
    var result: [UInt32: Int] = [:]
    var index = pixels.startIndex
    while index < pixels.endIndex {
      let colour =
        UInt32(pixels[index]) << 16 | UInt32(pixels[index + 1]) << 8 | UInt32(pixels[index + 2])
      result[colour, default: 0] += 1
      index += 3
    }
    return result
  }

  @Test(
    "vncdotool types and takes the exact picture",
    .needsPython)
  func vncdotool() throws {
    let machine = try FakeMachine()
    let size = scanout(320, 200)
    machine.fill(size, Rect(x: 0, y: 0, width: 320, height: 200), 0x102030)
    machine.fill(size, Rect(x: 100, y: 50, width: 60, height: 40), 0xF0A050)
    machine.server.publish(size)
    let listener = try listener(machine)
    defer { listener.close() }
    let directory = try TemporaryDirectory()
    let python = try #require(Programs.python)
    let (status, output) = try directory.run(
      """
      \(python.dropLast("python".count))vncdo -s 127.0.0.1::\(listener.port) \
      type aZ1 key enter move 10 20 click 1 capture shot.png
      """)
    #expect(status == 0, "\(output)")
    let codes = machine.received.inputs.compactMap { event -> UInt16? in
      if case .key(let code, pressed: true) = event { code.rawValue } else { nil }
    }
    #expect(codes == [0x1E, 0x2A, 0x2C, 0x02, 0x1C])
    let (_, colours) = try directory.run(
      "convert shot.png -format '%[pixel:p{5,5}] %[pixel:p{120,60}] %w' info:")
    #expect(colours.contains("320"))
    #expect(colours.contains("(16,32,48)") && colours.contains("(240,160,80)"))
  }
}
