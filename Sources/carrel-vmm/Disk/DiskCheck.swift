import ArgumentParser
import Disk
import QMP

struct DiskCheck: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check", abstract: "Check that a qcow2 image does not contradict itself.",
    discussion: "The exit status is 0 when it is sound, 1 when it is not or cannot be checked.")

  @OptionGroup var options: DiskToolOptions

  @Flag(help: "Count anew what is in use, which finds lost room again.")
  var repair = false

  func run() throws {
    var result = ImageCheck()
    try options.run("checking") { progress in
      // What it is based on does not matter here, and need not be there.
      result = try Self.check(options.file, repairs: repair) { progress.show($0, 1000) }
    }
    let verdict =
      result.isClean
      ? "\(options.file) is sound."
      : "\(options.file) has \(result.errors) errors and \(result.leaks) lost clusters."
    try options.report(
      [
        "file": .string(options.file), "errors": .integer(Int64(result.errors)),
        "leaks": .integer(Int64(result.leaks)),
        "problems": .array(result.problems.map { .string($0) }),
      ], ([verdict] + result.problems).joined(separator: "\n"))
    guard result.isClean else { throw ExitCode.failure }
  }

  private static func check(
    _ file: String, repairs: Bool, progress: @escaping (UInt64) -> Void
  ) throws -> ImageCheck {
    let image = try Qcow2Image.openAlone(file, isReadOnly: !repairs)
    if repairs { try image.repairCounts() }
    let result = try image.check { progress(UInt64($0 * 1000)) }
    if repairs { try image.close() } else { image.unlock() }
    return result
  }
}
