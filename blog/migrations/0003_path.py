from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('blog', '0002_lesson'),
    ]

    operations = [
        migrations.AddField(
            model_name='post',
            name='part',
            field=models.CharField(blank=True, editable=False, max_length=20),
        ),
        migrations.AddField(
            model_name='post',
            name='scope',
            field=models.CharField(blank=True, editable=False, max_length=20),
        ),
        migrations.AddField(
            model_name='post',
            name='lab',
            field=models.CharField(blank=True, editable=False, max_length=80),
        ),
    ]
