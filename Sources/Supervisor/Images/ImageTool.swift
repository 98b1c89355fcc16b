import Brokering
import Glibc
import LinuxSystem

/// A program that makes or reads images, while it runs.
struct ImageTool: Sendable {
  /// Debian's, which reads the formats of other products.
  static let converter = "/usr/bin/qemu-img"

  let child: ChildProcess
  let output: FileDescriptor

  /// Debian's packages of the programs that are not Carrel's.
  private static let packages = [
    converter: "qemu-utils", Restic.program: "restic", ExportArchive.program: "tar",
    ExportArchive.compressor: "zstd",
  ]

  static func check(_ program: String) throws(BrokerError) {
    guard access(program, X_OK) != 0 else { return }
    throw BrokerError(
      .host,
      "\(program) is missing: "
        + (packages[program].map { "install it with 'apt install \($0)'" }
          ?? "install Carrel's programs together"))
  }

  /// Starts `program`. It is told to end when the calling thread does.
  ///
  /// - Parameter others: descriptors that it is given besides.
  init(
    _ program: String, _ arguments: [String], errors: FileDescriptor, directory: String = "/",
    others: [Int32: FileDescriptor] = [:], environment: [String: String] = [:]
  ) throws {
    try Self.check(program)
    let pipe = try Pipe()
    var request = ChildProcess.Request(program, arguments)
    request.environment = [
      "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
    ].merging(environment) { $1 }
    request.directory = directory
    request.descriptors = [
      0: try FileDescriptor.open("/dev/null"), 1: pipe.input, 2: errors,
    ].merging(others) { $1 }
    request.newSession = true
    request.parentDeathSignal = .terminate
    child = try ChildProcess(request)
    try? OutOfMemoryScore.set(OutOfMemoryScore.tool, of: child.handle)
    // This process's end for writing goes with `pipe`, so that reading comes to an end.
    output = pipe.output
  }

  /// Runs a program that says little to its end. Blocks.
  ///
  /// - Parameters:
  ///   - interruption: ends it before.
  ///   - tell: called with each line of its output.
  /// - Returns: whether it succeeded, and the last that it said if not.
  static func run(
    _ program: String, _ arguments: [String], interruption: Interruption = Interruption(),
    tell: (String) -> Void = { _ in }
  ) throws -> (isSuccess: Bool, errors: String) {
    defer { interruption.process = nil }
    let said = try ToolOutput(
      of: program, arguments, .init(), started: { interruption.process = $0 },
      follow: { tell(String(decoding: $0, as: UTF8.self)) })
    return (said.exit == .exited(0), lastLine(of: said.errors))
  }

  /// What is said about one image: its header in JSON, or why there is none.
  static func describe(
    _ arguments: [String]
  ) throws -> (isSuccess: Bool, output: [UInt8], errors: [UInt8]) {
    let said = try ToolOutput(
      of: converter, arguments, .init(), started: { _ in }, follow: { _ in })
    return (said.exit == .exited(0), said.output, said.errors)
  }

  /// The last line with text in it, without the program's own name.
  static func lastLine(of bytes: [UInt8]) -> String { lines(of: bytes).last ?? silence }

  /// For programs that tell the reason first.
  static func firstLine(of bytes: [UInt8]) -> String { lines(of: bytes).first ?? silence }

  private static let silence = "it does not say why"

  private static func lines(of bytes: [UInt8]) -> [String] {
    String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline)
      .filter { !$0.allSatisfy(\.isWhitespace) }
      .map { line in
        let names = ["qemu-img: ", "carrel-vmm: ", "/usr/bin/tar: "]
        return String(line.dropFirst(names.first { line.hasPrefix($0) }?.count ?? 0))
      }
  }
}
