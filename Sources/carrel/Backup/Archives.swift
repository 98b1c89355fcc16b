import ArgumentParser
import ControlAPI
import ControlClient

struct DesktopExport: BackupVerb {
  static let configuration = CommandConfiguration(
    commandName: "export", abstract: "Writes a desktop, which runs on, to one file.",
    discussion: "Another site makes a desktop of it with 'carrel import'. It is not encrypted.")

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var desktop: String

  @Argument(help: "The file, on carreld's host.", completion: .file())
  var file: String

  @OptionGroup var job: BackupJobOptions
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> BackupJobDocument {
    var request = BackupRequest()
    (request.subject, request.file) = (desktop, absolute(file))
    return try await job.begin("export", request, client, terminal)
  }
}

struct DesktopImport: BackupVerb {
  static let configuration = CommandConfiguration(
    commandName: "import", abstract: "Makes a desktop of a file that was exported.",
    discussion: """
      It goes on where it was when its owner logs in, if its pool has the hardware that it was \
      exported with; otherwise it boots.
      """)

  @Argument(help: "The file, on carreld's host.", completion: .file())
  var file: String

  @OptionGroup var restore: RestoreOptions
  @OptionGroup var job: BackupJobOptions
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> BackupJobDocument {
    var request = BackupRequest()
    request.file = absolute(file)
    restore.fill(&request)
    return try await job.begin("import", request, client, terminal)
  }
}
