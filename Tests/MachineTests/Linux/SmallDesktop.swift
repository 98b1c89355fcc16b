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

  /// What a stock viewer does there: vncdotool, with these commands.
  func view(_ commands: String) throws {
    let python = try #require(Programs.python)
    let (status, output) = try files.run(
      "\(python.dropLast("python".count))vncdo -s 127.0.0.1::\(port) \(commands)")
    #expect(status == 0, "\(output)")
  }

  /// The picture as a viewer has it, in a file that stays for whoever wants to look.
  func capture(_ name: String) throws -> Picture {
    let directory = "\(Programs.repository)/build/guest-linux/pictures"
    _ = try files.run("mkdir -p \(directory)")
    let path = "\(directory)/\(name).png"
    try view("capture \(path)")
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
  }

  /// Width, `x`, height of X's screen.
  func screenSize() throws -> String {
    let text = try linux.run("desktop xdpyinfo | grep dimensions")
    return text.split(separator: " ").dropFirst().first.map(String.init) ?? text
  }

  /// Where X has the pointer.
  func pointer() throws -> [Int] {
    let text = try linux.run("desktop xinput query-state 'Virtual core pointer'")
    return text.split(separator: "\n").compactMap { line in
      line.contains("valuator[0]") || line.contains("valuator[1]")
        ? line.split(separator: "=").last.flatMap { Double($0) }.map { Int($0) } : nil
    }
  }
}
