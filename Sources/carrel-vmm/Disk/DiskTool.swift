import ArgumentParser
import Disk
import Glibc
import LinuxSystem
import QMP

/// What is done to disk images that no machine has open.
struct DiskTool: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "disk",
    abstract: "Make, look at and change disk images.",
    discussion: """
      Each command locks the images that it needs, and is refused while a machine has them. \
      What is interrupted, by a crash too, leaves every image reading as it did, and can be \
      done again.
      """,
    subcommands: [
      DiskCreate.self, DiskInfo.self, DiskCheck.self, DiskCopy.self, DiskFlatten.self,
      DiskRebase.self, DiskCommit.self,
    ])
}

/// What the commands have in common.
struct DiskToolOptions: ParsableArguments {
  @Argument(help: ArgumentHelp("A qcow2 image.", valueName: "file"))
  var file: String

  @Option(
    help: ArgumentHelp(
      "Images that it is based on may be in this directory, or below, besides its own.",
      valueName: "dir"))
  var bases: [String] = []

  @Flag(help: "Answer in JSON.")
  var json = false

  @Flag(help: "Tell each percent that is reached in a line of its own, for programs.")
  var progress = false

  var policy: BackingPolicy { BackingPolicy(directories: bases) }

  /// Says what was done.
  func report(_ document: JSON, _ text: String) throws {
    try FileDescriptor.standard(1).writeAll((json ? document.encoded : Array(text.utf8)) + [0x0A])
  }

  /// Does something that may take long.
  func run(_ text: String, _ body: (ProgressLine) throws -> Void) throws {
    let progress = ProgressLine("\(text) \(file)", isDrawn: !json && !progress, isTold: progress)
    do {
      defer { progress.end() }
      try body(progress)
    } catch {
      Diagnostics.report("\(error)")
      throw ExitCode.failure
    }
  }
}

/// A share of something, drawn over and over on a terminal or told in lines.
final class ProgressLine {
  private static let width = 30

  private let text: String
  private let isDrawn: Bool
  private let isTold: Bool
  private var shown: Int?

  init(_ text: String, isDrawn: Bool, isTold: Bool) {
    self.text = text
    self.isDrawn = isDrawn && isatty(2) == 1
    self.isTold = isTold
  }

  func show(_ done: UInt64, _ total: UInt64) {
    let percent = total == 0 ? 100 : Int(Double(done) / Double(total) * 100)
    guard isDrawn || isTold, percent != shown else { return }
    shown = percent
    if isTold { write("\(percent)%\n", to: 1) }
    guard isDrawn else { return }
    let filled = percent * Self.width / 100
    let bar =
      String(repeating: "#", count: filled) + String(repeating: "-", count: Self.width - filled)
    write("\r\u{1B}[K[\(bar)] \(text)", to: 2)
  }

  func end() {
    if isDrawn, shown != nil { write("\r\u{1B}[K", to: 2) }
    shown = nil
  }

  private func write(_ text: String, to descriptor: Int32) {
    // A terminal that is gone shows nothing.
    try? FileDescriptor.standard(descriptor).writeAll(Array(text.utf8))
  }
}

/// `raw:FILE` or `qcow2:FILE`.
struct BaseArgument {
  let backing: Qcow2Options.Backing

  init(parsing argument: String) throws {
    let parts = argument.split(separator: ":", maxSplits: 1)
    guard parts.count == 2, let format = ImageFormat(rawValue: String(parts[0])) else {
      throw ValidationError("'\(argument)' is no image: give raw:FILE or qcow2:FILE.")
    }
    backing = .init(String(parts[1]), format)
  }
}
