import LinuxSystem
import Machine
import TestSupport
import Testing
import VNCServer

/// The small Linux with its screen on a port for viewers.
final class SmallDesktop {
  let linux: SmallLinux
  let output: DisplayOutput
  let port: UInt16
  let files: TemporaryDirectory
  private let listener: ViewerListener

  init(_ start: SmallLinux.Start) throws {
    linux = try SmallLinux(start)
    files = try TemporaryDirectory()
    let output = try DisplayOutput(of: linux.machine, path: nil)
    self.output = output
    listener = try ViewerListener(
      at: "127.0.0.1:0", configuration: ViewerConfiguration()
    ) { try output.connect() }
    port = listener.port
  }

  deinit { listener.close() }

  /// What a stock viewer does there: vncdotool, with these commands and options.
  func view(_ commands: String, _ options: String = "") throws {
    let python = try #require(Programs.python)
    let (status, output) = try files.run(
      "\(python.dropLast("python".count))vncdo \(options) -s 127.0.0.1::\(port) \(commands)")
    #expect(status == 0, "\(output)")
  }

  /// TigerVNC, which asks for this size.
  func startViewer(on screen: VirtualScreen, size: String) throws -> ChildProcess {
    try screen.start("vncviewer", ["-DesktopSize=\(size)", "127.0.0.1::\(port)"])
  }

  /// The picture as a viewer has it, in a file that stays for whoever wants to look.
  func capture(_ name: String, _ options: String = "", after: String = "") throws -> Picture {
    let directory = "\(Programs.repository)/build/guest-linux/pictures"
    _ = try files.run("mkdir -p \(directory)")
    let path = "\(directory)/\(name).png"
    try view("\(after) capture \(path)", options)
    return Picture(path: path, files: files)
  }

  struct Picture {
    let path: String
    fileprivate let files: TemporaryDirectory

    /// Width, `x`, height.
    var size: String {
      get throws { try files.run("identify -format '%wx%h' \(path)").output }
    }

    /// Six digits.
    func color(_ x: Int, _ y: Int) throws -> String {
      let text = try files.run(
        "convert \(path) -alpha off -depth 8 -crop 1x1+\(x)+\(y) +repage rgb:- | od -An -tx1"
      ).output
      return text.filter { !$0.isWhitespace }
    }

    /// All that there are in a part of it.
    func colors(_ x: ClosedRange<Int>, _ y: ClosedRange<Int>) throws -> Set<String> {
      let text = try files.run(
        "convert \(path) -alpha off -depth 8 -crop \(x.count)x\(y.count)"
          + "+\(x.lowerBound)+\(y.lowerBound) +repage rgb:- | od -An -v -tx1 -w3"
      ).output
      return Set(text.split(separator: "\n").map { $0.filter { !$0.isWhitespace } })
    }
  }

  /// Width, `x`, height of X's screen.
  func screenSize() throws -> String {
    let text = try linux.run("desktop xdpyinfo | grep dimensions")
    return text.split(separator: " ").dropFirst().first.map(String.init) ?? text
  }

  /// Has X write down where the pointer goes.
  func watchPointer() throws {
    try linux.run("(desktop xinput test-xi2 --root >/tmp/pointer 2>&1 &)")
    try eventually("X to watch the pointer", seconds: 300) {
      try linux.run("wc -c </tmp/pointer").trimmed != "0"
    }
  }

  /// Where X saw the pointer last.
  func pointer() throws -> [Int] {
    let line = try linux.run("grep root: /tmp/pointer | tail -n 1")
    return line.split(separator: " ").last?.split(separator: "/").compactMap {
      Double($0.trimmed).map { Int($0) }
    } ?? []
  }
}

extension StringProtocol {
  /// Without space around it.
  fileprivate var trimmed: String {
    String(drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed())
  }
}
