import ArgumentParser
import ControlAPI
import ControlClient

struct ArchiveExport: BackupVerb {
  static let configuration = CommandConfiguration(
    commandName: "export",
    abstract: "Writes a desktop, which runs on, or a pool's template to one file.",
    discussion: """
      Another site makes the same of it with 'carrel import'. It is not encrypted. The template \
      of a pool is exported with its image; 'office' means the newest generation, 'office@3' that \
      one. A desktop goes before a pool of the same name.
      """)

  @Argument(
    help: "The desktop, or a pool or POOL@GENERATION for its template.",
    completion: .custom(Completions.desktops))
  var subject: String

  @Argument(help: "The file, on carreld's host.", completion: .file())
  var file: String

  @OptionGroup var job: BackupJobOptions
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> BackupJobDocument {
    var request = BackupRequest()
    (request.subject, request.file) = (subject, absolute(file))
    return try await job.begin("export", request, client, terminal)
  }
}

struct ArchiveImport: BackupVerb {
  static let configuration = CommandConfiguration(
    commandName: "import", abstract: "Makes a desktop or a template of a file that was exported.",
    discussion: """
      A desktop goes on where it was when its owner logs in to it, if its pool has the hardware \
      that it was exported with; otherwise it boots. A template becomes the newest generation of its \
      pool's, or of --pool, which must be what it was exported from, on the same processor; its \
      image comes to the library, or must be the same there.
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
